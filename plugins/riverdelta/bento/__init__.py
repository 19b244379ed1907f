"""The service: the only package that imports BentoML, Starlette or gRPC."""

from riverdelta.bento.online import online

__all__ = ["online"]
