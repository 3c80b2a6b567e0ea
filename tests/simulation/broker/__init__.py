"""A simulated RabbitMQ, in one process and without a socket.

It stands where ``consumer.broker.link`` opens a connection, so everything of ours above that runs unchanged: channels,
publisher, settling, outbox, supervisor. ``conformance`` holds it against a real one.
"""
