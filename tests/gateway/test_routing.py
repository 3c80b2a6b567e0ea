"""Finding the endpoint of a request, held against Starlette's own router."""

import itertools

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from consumer.gateway.gateway import Gateway
from consumer.gateway.routing import Found, Table
from consumer.settings import Settings

METHODS = ("HEAD", "POST", "DELETE")
PARTS = ("", "services", "calls", "events", "mcp", "call", "a")


def starlettes(routes: list[Route], method: str, path: str) -> Found | None:
    """What Starlette's router makes of a request: the first route that fits, else the first of another method."""
    scope = {"type": "http", "method": method, "path": path}
    other: Found | None = None
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            return Found(route, child["path_params"], taken=True)
        if match is Match.PARTIAL:
            other = other or Found(route, child["path_params"], taken=False)
    return other


async def test_the_route_of_every_path_is_starlettes() -> None:
    routes = Gateway(Settings()).routes
    table = Table(routes)
    found = 0
    for length in range(1, 5):
        for parts in itertools.product(PARTS, repeat=length):
            path = "/" + "/".join(parts)
            for method in METHODS:
                own = table.find(method, path)
                assert own == starlettes(routes, method, path), (method, path)
                found += own is not None and own.taken
    assert found > 50


@pytest.mark.parametrize("path", ["", "*", "services", "//", "/services/", "/Services"])
def test_what_is_no_path_of_ours_has_no_route(path: str) -> None:
    assert (
        Table([Route("/services", _endpoint), Route("/services/{service}/tools", _endpoint)]).find("GET", path) is None
    )


async def _endpoint(_: Request) -> Response:
    return Response()
