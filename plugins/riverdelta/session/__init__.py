"""The session: one ONNX Runtime session whose tables are exchanged while it scores."""

from riverdelta.session.providers import check_opens, choose_providers, open_session
from riverdelta.session.session import Scored, Session

__all__ = ["Scored", "Session", "check_opens", "choose_providers", "open_session"]
