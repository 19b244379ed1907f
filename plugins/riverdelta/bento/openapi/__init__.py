"""OpenAPI: what the service takes and answers."""

from riverdelta.bento.openapi.document import document

__all__ = ["document"]
