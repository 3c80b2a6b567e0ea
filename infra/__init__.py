"""Tools for operators and developers: deployments, dashboard, alerts, checks of these, and a broker.

The broker helper needs the standard library only, the checks what the development dependencies bring.
"""
