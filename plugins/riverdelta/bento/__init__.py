"""Everything that knows BentoML, Starlette or gRPC."""

from riverdelta.bento.online import online

__all__ = ["online"]
