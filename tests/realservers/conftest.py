"""Servers from PyPI and npm, installed once; and the table that a run makes for the docs."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.harness import Cluster

from .install import Unreachable, install
from .servers import Server, Servers
from .table import Table
from .visit import Visit, visiting

Visiting = Callable[[Server], AbstractAsyncContextManager[Visit]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "realservers: installs servers from PyPI and npm once, and starts them")


@pytest.fixture(scope="session")
def servers() -> Servers:
    try:
        return Servers(install())
    except Unreachable as error:
        pytest.skip(f"the servers cannot be installed: {error}")


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """The rows of this run; ``SERVERS_TABLE`` names the file that they are written to."""
    made = Table()
    yield made
    if path := os.environ.get("SERVERS_TABLE"):
        Path(path).write_text(made.markdown())


@pytest.fixture
def visit(mcp: Cluster, table: Table) -> Visiting:
    return partial(visiting, mcp, table)
