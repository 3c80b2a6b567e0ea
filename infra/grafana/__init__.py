"""The dashboard, and its provisioning in Grafana."""
