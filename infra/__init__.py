"""Tools for operators and developers: deployments, dashboard, alerts, checks of these, and a broker.

The broker helper needs only the standard library. The checks need the development dependencies.
"""
