"""Servers from npm: the SDK in TypeScript, of the era with a handshake."""

import base64

import pytest

from .conftest import Visiting
from .servers import Servers

pytestmark = [pytest.mark.realservers, pytest.mark.timeout(150, func_only=True)]

PNG = b"\x89PNG\r\n"


async def test_server_everything_shows_every_kind_of_content(servers: Servers, visit: Visiting):
    async with visit(servers.everything()) as session:
        assert session.protocol == "2025-11-25"
        assert await session.says("echo", message="grüezi") == "Echo: grüezi"
        assert await session.says("get-sum", a=2, b=40) == "The sum of 2 and 40 is 42."
        weather = await session.call("get-structured-content", location="New York")
        assert set(weather["structuredContent"]) == {"temperature", "conditions", "humidity"}
        (image,) = (part for part in (await session.call("get-tiny-image"))["content"] if part["type"] == "image")
        assert image["mimeType"] == "image/png"
        assert base64.b64decode(image["data"]).startswith(PNG)
        links = (await session.call("get-resource-links", count=2))["content"][1:]
        assert [link["type"] for link in links] == ["resource_link"] * 2
        embedded = (await session.call("get-resource-reference", resourceType="Blob", resourceId=2))["content"][1]
        assert base64.b64decode(embedded["resource"]["blob"]).startswith(b"Resource 2:")
        annotated = (await session.call("get-annotated-message", messageType="error"))["content"][0]
        assert annotated["annotations"] == {"priority": 1, "audience": ["user", "assistant"]}
        # Its question back is refused politely: nobody here has offered to answer any.
        assert '"action": "decline"' in await session.says("trigger-elicitation-request")

        features = "demo://resource/static/document/features.md"
        assert features in session.resources
        assert (await session.read(features))["text"].startswith("# Everything Server")
        assert (await session.read("demo://resource/dynamic/text/7"))["text"].startswith("Resource 7:")
        blob = (await session.read("demo://resource/dynamic/blob/7"))["blob"]
        assert base64.b64decode(blob).startswith(b"Resource 7:")

        assert "args-prompt" in session.prompts
        (asked,) = await session.prompt("args-prompt", city="Bern")
        assert asked == {"type": "text", "text": "What's weather in Bern?"}
        _, attached = await session.prompt("resource-prompt", resourceType="Text", resourceId="3")
        assert attached["resource"]["uri"] == "demo://resource/dynamic/text/3"


async def test_server_filesystem_writes_into_the_folder_of_its_session_and_nowhere_else(
    servers: Servers, visit: Visiting
):
    async with visit(servers.filesystem()) as session:
        await session.says("write_file", path="note.txt", content="call back at five")
        assert await session.says("read_text_file", path="note.txt") == "call back at five"
        assert session.folder is not None
        assert (session.folder / "note.txt").read_text() == "call back at five"
        assert "outside allowed directories" in await session.refuses("read_text_file", path="/etc/passwd")


async def test_server_memory_remembers_as_long_as_its_session_lasts(servers: Servers, visit: Visiting):
    async with visit(servers.memory()) as session:
        ann = {"name": "Ann", "entityType": "caller", "observations": ["prefers to be called back"]}
        await session.says("create_entities", entities=[ann])
        graph = (await session.call("read_graph"))["structuredContent"]
        assert graph == {"entities": [ann], "relations": []}
        assert session.resources == ["memory://knowledge-graph"]
        assert "prefers to be called back" in (await session.read("memory://knowledge-graph"))["text"]
        assert session.folder is not None
        assert (session.folder / "memory.jsonl").exists()


async def test_server_sequential_thinking_counts_the_thoughts_of_its_session(servers: Servers, visit: Visiting):
    async with visit(servers.sequential_thinking()) as session:
        for number in (1, 2):
            thought = {"thought": "who calls?", "thoughtNumber": number, "totalThoughts": 2, "nextThoughtNeeded": True}
            answer = await session.call("sequentialthinking", **thought)
            assert answer["structuredContent"]["thoughtHistoryLength"] == number


async def test_a_server_that_npx_started_is_ended_with_all_that_stands_between(servers: Servers, visit: Visiting):
    async with visit(servers.sequential_thinking_by_npx()) as session:
        assert len(session.processes) >= 2, "npx starts a shell and a Node of its own"
        thought = {"thought": "who calls?", "thoughtNumber": 1, "totalThoughts": 1, "nextThoughtNeeded": False}
        assert (await session.call("sequentialthinking", **thought))["structuredContent"]["totalThoughts"] == 1
