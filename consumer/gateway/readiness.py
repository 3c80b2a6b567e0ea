"""``/livez``, ``/readyz`` and ``/metrics`` of a gateway. A gateway that can reach a worker is ready."""

import asyncio
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from consumer.client import SessionClient
from consumer.gateway.bodies import Ready
from consumer.gateway.exchange import addressed, answer, granted
from consumer.gateway.rate_limits import RequestsInFlight
from consumer.observability.web import exposed_metrics
from schemas.errors import SessionsError

FRESH: Final = 1.0
"""How long (s) an answer of the workers is reused, so that many probes cause one request to RabbitMQ."""

ASK_TIMEOUT: Final = 1.0


class Readiness:
    """Reports whether requests can be answered here."""

    def __init__(self, client: SessionClient, in_flight: RequestsInFlight) -> None:
        self._client = client
        self._in_flight = in_flight
        self._ready_workers = 0
        self._until = 0.0
        self._asking = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routes of this endpoint."""
        return [Route("/livez", self.live), Route("/readyz", self.ready), Route("/metrics", self.metrics)]

    async def live(self, _: Request) -> Response:
        """Answer 200: the event loop runs."""
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Report whether a worker can be reached, and if not, why."""
        link = self._client.connected
        workers = await self._workers() if link else 0
        ready = bool(workers) and not self._in_flight.leaving
        told = Ready(ready=ready, link=link, workers=workers, draining=self._in_flight.leaving)
        return answer(told, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Expose the metrics of this process to this machine, and to holders of the scope ``console``."""
        if not addressed(request).direct:
            granted(request).check("console")
        body, content_type = exposed_metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def _workers(self) -> int:
        async with self._asking:
            if self._until <= time.monotonic():
                try:
                    found = (await self._client.list_workers(reply_timeout=ASK_TIMEOUT)).workers
                except SessionsError:
                    found = []
                self._ready_workers = sum(worker.state == "ready" for worker in found)
                self._until = time.monotonic() + FRESH
        return self._ready_workers
