"""Boards: the Grafana dashboards as code. `make dashboards` writes them to dashboards/*.json, which Grafana reads."""
