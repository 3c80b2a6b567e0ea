"""Shell completion of sessions, calls, services, workers and tools, from the running workers.

It is quick or silent: the user waits at most ``BOUND`` after Tab, and sees no error about a missing broker.
Nothing counts as a use of a session.

The scripts of bash and zsh evaluate completions, and call ids come from callers. So only words without special
characters are offered. The user has to type all others.
"""
# ruff: noqa: PLC0415 - see consumer.cli.command

import asyncio
import queue
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import typer

from consumer.cli.command import Invocation

if TYPE_CHECKING:
    from consumer.client import SessionClient

BOUND = 0.7
"""How long (s) the broker and the workers may take."""

CLOSING = 0.2
"""How long (s) closing the connection may take. Without a proper close, the broker logs a warning."""

MOST = 200
"""How many words are offered at most."""

LISTED = 2000
"""How many sessions are searched at most."""

_HARMLESS = re.compile(r"[A-Za-z0-9_.@+:/#%,-]+")
_NO_WORDS = re.compile(r"[^A-Za-z0-9_.,/ -]+")
HELP = 60

Offers = list[tuple[str, str]]
"""Words with a short description each. Bash shows only the words."""

Question = Callable[["SessionClient"], Awaitable[Offers]]


def session_ids(context: typer.Context, incomplete: str) -> Offers:
    """Complete the ids of open sessions."""
    return _offers(context, incomplete, _sessions)


def call_ids(context: typer.Context, incomplete: str) -> Offers:
    """Complete the ids of calls with open sessions."""
    return _offers(context, incomplete, _calls)


def service_names(context: typer.Context, incomplete: str) -> Offers:
    """Complete the names of services."""
    return _offers(context, incomplete, _services)


def worker_ids(context: typer.Context, incomplete: str) -> Offers:
    """Complete the ids of workers."""
    return _offers(context, incomplete, _workers)


def tool_names(context: typer.Context, incomplete: str) -> Offers:
    """Complete the tools of the service, or else the session, that the line names."""
    named = partial(_tools, context.params.get("session_id"), context.params.get("service"))
    return _offers(context, incomplete, named)


async def _sessions(client: "SessionClient") -> Offers:
    found = (await client.list_sessions(limit=LISTED)).sessions.values()
    return [(one.session_id, f"{one.service_name} on {one.worker_id}") for one in found]


async def _calls(client: "SessionClient") -> Offers:
    found = (await client.list_sessions(limit=LISTED)).sessions.values()
    return [(one.call_id, "") for one in found]


async def _services(client: "SessionClient") -> Offers:
    return [(name, service.description) for name, service in (await client.list_services()).services.items()]


async def _workers(client: "SessionClient") -> Offers:
    return [(one.worker_id, f"{one.state} on {one.host}") for one in (await client.list_workers()).workers]


async def _tools(session_id: str | None, service: str | None, client: "SessionClient") -> Offers:
    if service is None and session_id is not None:  # asked for its tools, the session would count that as a use
        from schemas.ids import call_id_of

        sessions = (await client.list_sessions(call_id=call_id_of(session_id))).sessions
        service = sessions[session_id].service_name
    tools = (await client.service_tools(service)).tools if service else []
    return [(one.name, one.description or "") for one in tools]


def event_patterns(incomplete: str) -> list[str]:
    """Complete the patterns of events."""
    from typing import get_args

    from schemas.events import SessionEventType, WorkerEventType

    known = [*(one.value for one in SessionEventType), *get_args(WorkerEventType)]
    return [one for one in known if one.startswith(incomplete)]


def files(incomplete: str) -> list[str]:  # noqa: ARG001 - typer asks for it
    """Offer nothing, because the shell then completes files by itself."""
    return []


def _offers(context: typer.Context, incomplete: str, question: Question) -> Offers:
    fitting = {
        word: " ".join(_NO_WORDS.sub(" ", about).split())[:HELP]
        for word, about in _answer(_invocation(context), question)
        if word.startswith(incomplete) and _HARMLESS.fullmatch(word)
    }
    return sorted(fitting.items())[:MOST]


def _answer(invocation: Invocation, question: Question) -> Offers:
    """Ask in a thread that is abandoned if it takes too long, because closing a hanging connection would hang too."""
    import consumer.client  # noqa: F401 - takes long, and is not the broker's fault
    from consumer.observability import configure_logging

    configure_logging("critical", "console")
    answers: queue.Queue[Offers] = queue.Queue()

    async def ask() -> None:
        async with invocation.client() as client:
            answers.put(await question(client))

    def run() -> None:
        with suppress(Exception):  # whatever it is: the lines of a traceback would be taken for words
            asyncio.run(ask())
        answers.put([])

    asking = threading.Thread(target=run, name="completing", daemon=True)
    asking.start()
    try:
        answer = answers.get(timeout=BOUND)
    except queue.Empty:
        return []
    asking.join(CLOSING)
    return answer


def _invocation(context: typer.Context) -> Invocation:
    """Return the options typed so far, before and after the command's name."""
    found, at = Invocation(), context
    while True:
        given = at.params
        found = found.over(Invocation(given.get("url"), given.get("prefix"), given.get("config")))
        if at.parent is None:
            return found
        at = cast("typer.Context", at.parent)
