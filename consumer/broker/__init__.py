"""RabbitMQ: the only room that imports ``aio_pika``. Knows nothing of calls, sessions or MCP.

It offers the rest of the worker messages (``message``), what may become of them (``outcome``, ``settling``), the
topology as data (``topology``, ``declare``), and supervised connections (``link``, ``supervisor``) with a way to
publish through whichever connection is alive (``publisher``, ``outbox``).
"""
