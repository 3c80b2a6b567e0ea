"""The dashboard, and how Grafana is told of it."""
