"""A real RabbitMQ for every test, and a prefix of its own for each."""

import asyncio
import gc
import inspect
import os
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from infra.broker import PrivateBroker, find_server, open_broker, private_broker
from tests.harness import QUICK_STATISTICS, Cluster, cluster

# How long a busy machine takes to make up an example says nothing of the example.
settings.register_profile("tests", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


gc.set_threshold(10_000)  # what is imported and collected stays: the default looks through it again and again


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what is there for as long as the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    with open_broker() as url:
        yield url


@pytest.fixture(scope="session")
def own_broker() -> Iterator[PrivateBroker]:
    """A node that a test may stop, kill and administer, whatever ``AMQP_URL`` says; it has to leave it running."""
    if find_server() is None:
        pytest.skip("no rabbitmq-server here: a broker that comes from elsewhere is not ours to break")
    with private_broker(arguments=QUICK_STATISTICS) as node:
        yield node


@pytest.fixture
def prefix() -> str:
    return f"t{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
async def mcp(amqp_url: str, prefix: str) -> AsyncIterator[Cluster]:
    async with cluster(amqp_url, prefix) as made:
        yield made


@pytest.fixture(autouse=True)
def logging_as_it_comes() -> None:
    """No test hears more or less of the logs because another one ran before it in this process."""
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_task_is_left(request: pytest.FixtureRequest) -> None:
    """Tasks that a test has begun have ended when it ends; who has no loop has no tasks."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("tasks_that_end")


@pytest.fixture
async def tasks_that_end() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if not task.done()} - {asyncio.current_task()}
    if left:  # those that have only their last turn to come
        _, left = await asyncio.wait(left, timeout=1)
    assert not left, f"tasks left behind: {left}"
