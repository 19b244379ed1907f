"""The status page: GET / of a service, for those without a dashboard."""
