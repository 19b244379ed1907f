"""The session: one ONNX Runtime session whose tables are exchanged while it scores."""

from riverdelta.serving.session.session import Scored, Session

__all__ = ["Scored", "Session"]
