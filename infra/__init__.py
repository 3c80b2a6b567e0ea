"""What operators and developers use around the worker: deployments, dashboard and alerts, checks of them, a broker.

The broker helper needs the standard library only, the checks what the development dependencies bring.
"""
