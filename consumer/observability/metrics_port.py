"""The port for metrics and readiness, in any process that has one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consumer.observability.listening import CannotListen


@asynccontextmanager
async def metrics_port(host: str, port: int | None, readiness: Callable[[], dict[str, object]]) -> AsyncIterator[bool]:
    """Serve metrics and readiness on ``worker.http_port`` within this block. Yield whether the port is set.

    Raises:
        CannotListen: that port cannot be listened on.
    """
    if port is None:
        yield False
        return
    from consumer.observability.web import Web  # noqa: PLC0415 - takes time and memory, for those who want it

    web = Web(host, port, readiness)
    try:
        await web.open()
    except OSError as error:
        why = error.strerror or error
        raise CannotListen(f"worker.http_port: cannot listen on {host} port {port}: {why}") from error
    try:
        yield True
    finally:
        await web.close()
