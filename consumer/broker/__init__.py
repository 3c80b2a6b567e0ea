"""The connection to RabbitMQ. Only this room imports ``aio_pika``. It knows nothing of calls, sessions or MCP.

It offers the other rooms messages (``message``), the outcomes of their handling (``outcome``, ``settling``), the
topology as data (``topology``, ``declare``), and supervised connections (``link``, ``supervisor``) with a way to
publish through whichever connection is alive (``publisher``, ``outbox``).
"""
