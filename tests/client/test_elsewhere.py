"""A client that was connected before a fork, or in another event loop, says so at once, and can be connected anew."""

import asyncio
from textwrap import dedent

import pytest

from tests.harness import WAIT, Cluster
from tests.programs import output_of, start_code


@pytest.fixture
async def mcp(mcp: Cluster) -> Cluster:
    await mcp.start()
    return mcp


async def printed(mcp: Cluster, program: str) -> list[str]:
    """What a program prints, in a process of its own: a fork of this one would have its threads' locks."""
    head = f"""
import asyncio, os, warnings
from consumer.client import *
warnings.simplefilter("ignore", DeprecationWarning)  # who forks a process with threads is told
URL, PREFIX = {mcp.url!r}, {mcp.prefix!r}
"""
    process = await start_code(
        head + dedent(program), mcp.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await output_of(process, 2 * WAIT)
    return out.decode().splitlines()


LOGGED = """
import logging, structlog
from consumer.observability.logs import get_shared_logger

def configure():
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(sort_keys=True)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )

async def use(before):
    if before:
        configure()
    client = SessionClient(URL, prefix=PREFIX)
    if not before:
        configure()
    async with client:
        structlog.get_logger().info("of the program")
    get_shared_logger("library").info("detail")
    get_shared_logger("library").warning("of the library")

asyncio.run(use({before}))
"""


@pytest.mark.parametrize("before", [True, False])
async def test_a_program_that_has_a_log_gets_the_clients_warnings_only(mcp: Cluster, before: bool):
    assert await printed(mcp, LOGGED.replace("{before}", str(before))) == [
        '{"event": "of the program"}',
        '{"event": "of the library"}',
    ]


SYNCHRONOUS = """
client = SyncSessionClient(URL, prefix=PREFIX)
client.connect()
with client.following() as events:
    if child := os.fork():
        os.waitpid(child, 0)
        print("parent", client.connected, len(client.list_workers().workers), flush=True)
    else:
        for ask in (client.list_workers, events.get):
            try:
                ask()
            except NotConnectedHere as error:
                print("child", client.connected, error.executed, error)
        client.connect()
        print("child", client.connected, len(client.list_workers().workers))
client.disconnect()
"""

ASYNCHRONOUS = """
client = SessionClient(URL, prefix=PREFIX)

async def ask():
    try:
        await client.list_workers()
    except NotConnectedHere as error:
        print("child", client.connected, error.executed, error)
    async with client:
        print("child", client.connected, len((await client.list_workers()).workers))

async def main():
    async with client:
        if child := os.fork():
            os.waitpid(child, 0)
            print("parent", client.connected, len((await client.list_workers()).workers), flush=True)
            return
        asyncio._set_running_loop(None)  # as in a child that multiprocessing forks
        asyncio.run(ask())
        print(end="", flush=True)
        os._exit(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [SYNCHRONOUS, ASYNCHRONOUS], ids=["synchronous", "asynchronous"])
async def test_after_a_fork_a_client_says_what_to_do_and_the_parents_goes_on(mcp: Cluster, program: str):
    told = await printed(mcp, program)
    refused = "child False False the client was connected before this process was forked; connect it in this process"
    assert list(dict.fromkeys(told)) == [refused, "child True 1", "parent True 1"]


async def test_a_second_event_loop_is_refused_at_once_and_can_be_connected_in(mcp: Cluster):
    told = await printed(
        mcp,
        """
        client = SessionClient(URL, prefix=PREFIX)

        async def first():
            await client.connect()
            print(len((await client.list_workers()).workers))

        async def second():
            for ask in (client.list_workers(), client.publish_call_event({"call_id": "c", "kind": "progress"})):
                try:
                    await ask
                except NotConnectedHere as error:
                    print(error)
            async with client:
                print(len((await client.list_workers()).workers))

        asyncio.run(first())
        asyncio.run(second())
        """,
    )
    assert told[0] == told[-1] == "1"
    assert len(told) == 4
    assert all("another event loop; connect it in this one" in one for one in told[1:3])
