"""OpenAPI: what the service takes and answers."""
