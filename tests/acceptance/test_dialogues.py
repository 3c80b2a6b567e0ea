"""What servers of both eras tell of themselves, ask and hear while a request runs, by way of the queue."""

import asyncio
import sys
import time

import pytest

from consumer.client import Answer
from schemas.errors import InvalidArgument, InvalidMessage, ServiceNotFound, SessionNotFound, ToolCancelled
from schemas.interim import InputRequired, ToolsChanged, ToolsLog, ToolsPending, ToolsProgress
from tests.harness import ECHO, ROOT, Cluster

MODERN = [sys.executable, "-S", str(ROOT / "tests" / "servers" / "modern_server.py")]
BOTH = {"services": {"old": {"command": ECHO}, "new": {"command": MODERN}}}
LARGE: Answer = {"action": "accept", "content": {"answer": "large"}}

eras = pytest.mark.parametrize("era", ["old", "new"])


def heard_by(answer, era):
    """What the server was answered by its caller."""
    found = answer.structured_content
    return found["reply"]["result"] if era == "old" else found["answers"]["q1"]


@pytest.fixture
async def both(mcp: Cluster):
    """A worker with a service of each era."""
    await mcp.start(BOTH)
    return mcp


@eras
async def test_a_session_says_what_its_server_is(both: Cluster, era):
    await both.client.create("c", era)
    about = await both.client.describe("c")
    assert (about.session_id, about.service_name) == ("c", era)
    assert about.capabilities["tools"] == {"listChanged": True}
    expected = {"old": ("handshake", "2025-11-25", "echo"), "new": ("modern", "2026-07-28", "modern")}
    assert (about.era, about.protocol_version, (about.server_info or {})["name"]) == expected[era]
    assert await both.client.describe("c", service_name=era) == about
    with pytest.raises(SessionNotFound):
        await both.client.describe("other")


@eras
async def test_a_service_says_what_its_server_is_without_a_session(both: Cluster, era):
    about = await both.client.describe_service(era)
    assert about.session_id is None
    assert about.era == {"old": "handshake", "new": "modern"}[era]
    assert (await both.client.list_sessions()).sessions == {}
    with pytest.raises(ServiceNotFound):
        await both.client.describe_service("none")


@eras
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"action": "acept"}, "action: must be 'accept', 'decline' or 'cancel'"),
        ("large", "must be a dict such as {'action': 'decline'}, is of type str"),
        (None, "must be a dict such as {'action': 'decline'}, is None"),
    ],
)
async def test_a_wrong_answer_to_a_question_says_that_the_tool_call_was_sent(both: Cluster, era, answer, told):
    with pytest.raises(InvalidArgument, match=r"on_question returned a wrong answer.*The tool call was sent") as caught:
        await both.client.call_tool("c", "ask", service_name=era, on_question=lambda _: answer, idempotency_key="k")
    assert told in str(caught.value)
    assert (caught.value.executed, caught.value.retryable) == (None, False)
    assert (await both.client.cancel_tool("c", "k")).cancelled, "it runs"


@eras
async def test_a_question_is_returned_and_its_answer_goes_on_with_the_call(both: Cluster, era):
    asked = await both.client.call_tool("c", "ask", service_name=era, return_questions=True)
    assert (asked.result_type, asked.session_id, asked.content) == ("input_required", "c", [])
    ((name, question),) = (asked.input_requests or {}).items()
    assert question["method"] == "elicitation/create"
    answer = await both.client.call_tool(
        "c", "ask", return_questions=True, input_responses={name: LARGE}, request_state=asked.request_state
    )
    assert answer.result_type == "complete"
    assert heard_by(answer, era) == LARGE


@eras
async def test_a_requester_who_answers_meanwhile_is_asked_as_before(both: Cluster, era):
    answer = await both.client.call_tool("c", "ask", service_name=era, on_question=lambda _: LARGE)
    assert heard_by(answer, era) == LARGE


async def test_who_comes_back_without_an_answer_is_asked_again(both: Cluster):
    asked = await both.client.call_tool("c", "ask", service_name="old", return_questions=True)
    again = await both.client.call_tool("c", "ask", return_questions=True, request_state=asked.request_state)
    assert again.input_requests == asked.input_requests


async def test_a_call_whose_requester_stays_away_is_cancelled_at_its_server(mcp: Cluster):
    await mcp.start({"services": {"old": {"command": ECHO, "question_timeout": 0.3}}})
    asked = await mcp.client.call_tool("c", "ask", service_name="old", return_questions=True)
    async with asyncio.timeout(45):
        while not (await mcp.client.call_tool("c", "cancelled")).structured_content["ids"]:
            await asyncio.sleep(0.05)
    with pytest.raises(InvalidMessage, match="is unknown or has expired"):
        await mcp.client.call_tool("c", "ask", return_questions=True, request_state=asked.request_state)


async def test_a_state_is_good_for_its_own_request_only(both: Cluster):
    asked = await both.client.call_tool("c", "ask", service_name="old", return_questions=True)
    with pytest.raises(InvalidMessage, match="belongs to tools/call ask"):
        await both.client.call_tool("c", "echo", return_questions=True, request_state=asked.request_state)
    other = await both.client.call_tool("d", "echo", service_name="old")
    assert other.session_id == "d"
    with pytest.raises(InvalidMessage, match="is unknown or has expired"):
        await both.client.call_tool("d", "ask", return_questions=True, request_state=asked.request_state)


async def test_what_a_requester_offers_is_what_the_server_may_ask(both: Cluster):
    refused = await both.client.call_tool(
        "c", "ask", service_name="old", on_question=lambda _: LARGE, client_capabilities={}
    )
    assert heard_by(refused, "old") == {"action": "decline"}


@eras
async def test_a_model_and_roots_are_asked_of_who_offers_them(mcp: Cluster, era):
    offers = {"offers": ["sampling", "roots"]} if era == "old" else {}
    await mcp.start({"services": {era: {"command": ECHO if era == "old" else MODERN, **offers}}})
    said = {"role": "assistant", "content": {"type": "text", "text": "hello"}, "model": "m"}
    asked: list[InputRequired] = []

    def answer(question: InputRequired):
        asked.append(question)
        return {"result": said}

    sampling = {"messages": [], "maxTokens": 1}
    name, arguments = (
        ("request", {"method": "sampling/createMessage", "params": sampling}) if era == "old" else ("sample", {})
    )
    told = await mcp.client.call_tool(
        "c", name, arguments, service_name=era, on_question=answer, client_capabilities={"sampling": {}}
    )
    assert [question.method for question in asked] == ["sampling/createMessage"]
    found = told.structured_content["reply"]["result"] if era == "old" else told.structured_content["answers"]["s1"]
    assert found["content"]["text"] == "hello"


@eras
async def test_a_call_is_cancelled_by_its_key(both: Cluster, era):
    began = asyncio.Event()

    async def pending(_: ToolsPending):
        began.set()

    await both.client.create("c", era)
    running = asyncio.create_task(
        both.client.call_tool("c", "sleep", {"seconds": 30}, idempotency_key="k", pending_after=0.2, on_pending=pending)
    )
    async with asyncio.timeout(45):
        await began.wait()
    before = time.monotonic()
    assert (await both.client.cancel_tool("c", "k")).cancelled
    with pytest.raises(ToolCancelled):
        await running
    assert time.monotonic() - before < 20
    assert len((await both.client.call_tool("c", "cancelled")).structured_content["ids"]) == 1
    assert not (await both.client.cancel_tool("c", "k")).cancelled
    with pytest.raises(ToolCancelled):  # it may have been executed: the key is used up
        await both.client.call_tool(
            "c", "sleep", {"seconds": 30}, idempotency_key="k", pending_after=0.2, on_pending=pending
        )


async def test_a_call_that_waits_for_its_answers_can_be_cancelled_too(both: Cluster):
    asked = await both.client.call_tool("c", "ask", service_name="old", return_questions=True, idempotency_key="k")
    assert (await both.client.cancel_tool("c", "k")).cancelled
    with pytest.raises(InvalidMessage, match="is unknown or has expired"):
        await both.client.call_tool("c", "ask", return_questions=True, request_state=asked.request_state)


async def test_where_nothing_runs_nothing_is_cancelled(both: Cluster):
    assert not (await both.client.cancel_tool("nobody", "k")).cancelled


async def test_a_repetition_hears_progress_and_questions_as_well(both: Cluster):
    await both.client.create("c", "old")
    first: asyncio.Queue = asyncio.Queue()
    second: asyncio.Queue = asyncio.Queue()

    def asking(heard, steps):
        return asyncio.create_task(
            both.client.call_tool(
                "c", "progress", {"steps": steps, "interval": 0.1}, idempotency_key="k", on_progress=heard.put
            )
        )

    one = asking(first, 20)
    async with asyncio.timeout(45):
        await first.get()
    two = asking(second, 20)
    assert (await one).text == (await two).text == "20 steps"
    assert isinstance(second.get_nowait(), ToolsProgress)


async def test_a_repetition_can_answer_the_question_of_the_first(both: Cluster):
    await both.client.create("c", "old")
    asked = asyncio.Event()

    async def gone(_: InputRequired):
        asked.set()
        await asyncio.sleep(1000)

    async def call(on_question):
        return await both.client.call_tool("c", "ask", idempotency_key="k", on_question=on_question)

    first = asyncio.create_task(call(gone))
    async with asyncio.timeout(45):
        await asked.wait()
    answer = await call(lambda _: LARGE)
    assert heard_by(answer, "old") == LARGE
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@eras
async def test_an_argument_is_completed(both: Cluster, era):
    await both.client.create("c", era)
    found = await both.client.complete("c", {"type": "ref/prompt", "name": "greet"}, {"name": "who", "value": "A"})
    assert found.completion.values == ["A-one", "A-two"]
    assert (found.completion.total, found.completion.has_more) == (2, False)


@eras
async def test_log_messages_come_before_the_reply_at_the_level_that_was_set(both: Cluster, era):
    heard: list[ToolsLog] = []
    await both.client.create("c", era)
    await both.client.set_logging_level("c", "debug")
    await both.client.call_tool("c", "log", on_log=heard.append)
    assert [(one.level, one.data) for one in heard] == [("debug", {"text": "hello"})]
    await both.client.call_tool("c", "log")
    assert len(heard) == 1


async def test_a_flood_of_log_messages_is_bounded(both: Cluster):
    heard: list[ToolsLog] = []
    await both.client.call_tool("c", "log", {"times": 1_200}, service_name="old", on_log=heard.append, timeout=60)
    assert len(heard) == 1_000
    heard.clear()
    await both.client.call_tool("c", "log", {"text": "x" * 100_000}, on_log=heard.append)
    assert len(heard[0].data) == 64 << 10


@eras
async def test_a_resource_that_changes_is_told_while_it_is_subscribed_to(both: Cluster, era):
    await both.client.create("c", era)
    await both.client.subscribe_resource("c", "note://one")
    await both.client.subscribe_resource("c", "note://two")
    await both.client.call_tool("c", "touch", {"uri": "note://one"})
    updated = await both.event("resource_updated", session_id="c")
    assert (updated.data["uri"], updated.data["service_name"]) == ("note://one", era)
    await both.client.unsubscribe_resource("c", "note://one")
    await both.client.call_tool("c", "touch", {"uri": "note://one"})
    await both.client.call_tool("c", "touch", {"uri": "note://two"})
    await both.event("resource_updated", uri="note://two")
    assert len(both.of("resource_updated", uri="note://one")) == 1


@eras
async def test_a_list_that_changes_is_told(both: Cluster, era):
    await both.client.create("c", era)
    await both.client.subscribe_resource("c")
    await both.client.call_tool("c", "add_tool", {"name": "neu"})
    assert (await both.event("list_changed", session_id="c")).data["list"] == "tools"


@eras
async def test_what_changes_while_a_tool_call_runs_is_told_before_its_reply(both: Cluster, era):
    heard: list[ToolsChanged] = []
    await both.client.subscribe_resource("c", "note://one", service_name=era, open="beside")
    await both.client.call_tool("c", "touch", {"uri": "note://one"}, on_change=heard.append)
    await both.client.call_tool("c", "add_tool", {"name": "neu"}, on_change=heard.append)
    assert [(one.list, one.uri) for one in heard] == [(None, "note://one"), ("tools", None)]
    await both.client.call_tool("c", "touch", {"uri": "note://one"})
    assert len(heard) == 2


@eras
async def test_what_uses_a_session_opens_it_where_that_is_wanted(both: Cluster, era):
    ref, argument = {"type": "ref/prompt", "name": "greet"}, {"name": "who", "value": "A"}
    with pytest.raises(SessionNotFound):
        await both.client.complete("c", ref, argument, service_name=era)
    found = await both.client.complete("c", ref, argument, service_name=era, open="beside")
    assert found.completion.values == ["A-one", "A-two"]
    beside = {"old": "new", "new": "old"}[era]
    await both.client.complete("c", ref, argument, service_name=beside, open="beside")
    assert sorted((await both.client.list_sessions()).sessions) == ["c", f"c#{beside}"]


async def test_a_call_goes_on_while_anybody_waits_who_has_asked_for_it(both: Cluster):
    began: asyncio.Queue = asyncio.Queue()
    await both.client.create("c", "old")

    def asking():
        return asyncio.create_task(
            both.client.call_tool(
                "c", "progress", {"steps": 1_000, "interval": 0.05}, idempotency_key="k", on_progress=began.put
            )
        )

    async def leaves():
        left = {"session_id": "c", "idempotency_key": "k", "leaves": True}
        return (await both.client.request("tools.cancel", left, call_id="c"))["cancelled"]

    one = asking()
    async with asyncio.timeout(45):
        await began.get()
    two = asking()
    # The second has joined when both of them hear the same step.
    async with asyncio.timeout(45):
        heard = None
        while heard != (heard := (await began.get()).progress):
            pass
    assert not await leaves()
    assert await leaves()
    for left in (one, two):
        with pytest.raises(ToolCancelled):
            await left
    assert not await leaves()


async def test_what_a_server_tells_again_and_again_is_told_once_a_second(both: Cluster):
    await both.client.create("c", "old")
    await both.client.subscribe_resource("c", "note://one")
    await both.client.call_tool("c", "touch", {"times": 500})
    await both.until(lambda: len(both.of("resource_updated")) == 2)
    await both.client.close("c")
    await both.event("closed", session_id="c")
    assert len(both.of("resource_updated")) == 2


async def test_a_session_has_a_bounded_number_of_subscriptions(both: Cluster):
    await both.client.create("c", "new")
    await both.client.create("d", "old")
    for number in range(256):
        await both.client.subscribe_resource("d", f"note://{number}")
    with pytest.raises(InvalidMessage, match="256 subscriptions"):
        await both.client.subscribe_resource("d", "note://more")
