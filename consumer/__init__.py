"""The worker: phone calls in, MCP sessions out, on RabbitMQ.

Rooms, and what each refuses to know::

    settings        configuration               knows no broker, starts nothing
    telephony       platform events -> ours     pure; knows neither broker nor MCP
    sessions        the session core            knows neither broker nor MCP
    processes       MCP servers                 the only room that imports mcp
    broker          RabbitMQ                    the only room that imports aio_pika
    calls           placing and owning          decides; speaks to the broker room, never to its library
    observability   logs, metrics, traces       imported by all, imports none

Only the composition root (``worker``) knows them all.
"""

__version__ = "0.1.0"
