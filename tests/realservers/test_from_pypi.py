"""Servers from PyPI: on today's SDK they speak 2026-07-28, on the one before they want a handshake."""

import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from schemas.errors import StartFailed
from tests.harness import Cluster

from .conftest import Visiting
from .servers import Servers
from .table import Row, Table
from .visit import servers_of

pytestmark = [pytest.mark.realservers, pytest.mark.timeout(150, func_only=True)]

MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"


async def test_mcp_server_time_converts_between_zones(servers: Servers, visit: Visiting):
    async with visit(servers.time()) as session:
        assert session.protocol == MODERN
        noon = {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "Asia/Kolkata"}
        converted = (await session.call("convert_time", **noon))["structuredContent"]
        assert converted["time_difference"] == "-3.5h"
        assert converted["target"]["datetime"].endswith("T08:30:00+05:30")
        now = (await session.call("get_current_time", timezone="Asia/Tokyo"))["structuredContent"]
        assert abs(datetime.fromisoformat(now["datetime"]) - datetime.now(UTC)) < timedelta(seconds=30)
        assert "Nowhere" in await session.refuses("get_current_time", timezone="Nowhere")
        assert session.resources == []
        assert session.prompts == []


async def test_mcp_server_git_commits_to_the_repository_that_it_was_given(
    servers: Servers, visit: Visiting, tmp_path: Path
):
    repository = {"repo_path": str(tmp_path)}
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "call.txt").write_text("answered\n")
    async with visit(servers.git(str(tmp_path))) as session:
        assert session.protocol == MODERN
        assert "call.txt" in await session.says("git_status", **repository)
        await session.says("git_add", **repository, files=["call.txt"])
        await session.says("git_commit", **repository, message="Note a call")
        assert "Note a call" in await session.says("git_log", **repository)
        assert "outside the allowed repository" in await session.refuses("git_status", repo_path="/")
    done = subprocess.run(["git", "log", "--format=%an"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "Ann Operator\n"


PAGES = {
    "/robots.txt": ("text/plain", "User-agent: *\nDisallow: /private\n"),
    "/hours": ("text/html", "<html><body><h1>Opening hours</h1><p>Nine to <b>five</b>.</p></body></html>"),
    "/private": ("text/plain", "for people only"),
}


class Site(ThreadingHTTPServer):
    """A site on this machine, with a page for everybody and one that robots shall leave alone."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visitor)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []


class Visitor(BaseHTTPRequestHandler):
    def do_GET(self):
        assert isinstance(self.server, Site)
        self.server.asked.append(self.path)
        kind, body = PAGES[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        thread = threading.Thread(target=made.serve_forever, name="site", args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join(5)


async def test_mcp_server_fetch_reads_a_page_after_it_has_asked_for_robots_txt(
    servers: Servers, visit: Visiting, site: Site
):
    async with visit(servers.fetch()) as session:
        assert session.protocol == MODERN
        page = await session.says("fetch", url=f"{site.url}/hours")
        assert page.endswith("# Opening hours\n\nNine to five.")
        assert site.asked == ["/robots.txt", "/hours"]
        refusal = await session.refuses("fetch", url=f"{site.url}/private")
        assert "autonomous fetching of this page is not allowed" in refusal
        assert "/private" not in site.asked
        # A person who asks for it by the prompt gets it all the same.
        assert session.prompts == ["fetch"]
        (answer,) = await session.prompt("fetch", url=f"{site.url}/private")
        assert answer["text"].endswith("for people only")


async def test_mcp_server_calculator_calculates(servers: Servers, visit: Visiting):
    async with visit(servers.calculator()) as session:
        assert session.protocol == HANDSHAKE
        answer = await session.call("calculate", expression="2^10 + sqrt(16)")
        assert answer["structuredContent"] == {"result": "1028.0"}
        assert "division by zero" in await session.refuses("calculate", expression="1/0")


async def test_mcp_shell_server_runs_what_it_may_in_the_folder_of_its_session(servers: Servers, visit: Visiting):
    async with visit(servers.shell("pwd", "cat")) as session:
        assert session.protocol == HANDSHAKE
        assert (await session.says("shell_execute", command=["pwd"])).strip() == str(session.folder)
        assert await session.says("shell_execute", command=["cat"], stdin="through a pipe") == "through a pipe"
        assert "not allowed: rm" in await session.refuses("shell_execute", command=["rm", "-r", "."])


async def test_mcp_server_sqlite_works_on_the_sdk_that_it_was_written_for(servers: Servers, visit: Visiting):
    async with visit(servers.sqlite()) as session:
        assert session.protocol == HANDSHAKE
        await session.says("create_table", query="CREATE TABLE calls (caller TEXT)")
        await session.says("write_query", query="INSERT INTO calls VALUES ('Ann')")
        assert await session.says("read_query", query="SELECT caller FROM calls") == "[{'caller': 'Ann'}]"
        await session.says("append_insight", insight="Ann calls often")
        assert session.resources == ["memo://insights"]
        assert "Ann calls often" in (await session.read("memo://insights"))["text"]
        assert session.prompts == ["mcp-demo"]
        (prompt,) = await session.prompt("mcp-demo", topic="telephony")
        assert "telephony" in prompt["text"]


async def test_mcp_server_sqlite_breaks_on_todays_sdk_and_the_error_says_how(
    servers: Servers, mcp: Cluster, table: Table
):
    server = servers.sqlite_of_today()
    row = Row(server, result="")
    table.rows.append(row)
    worker = await mcp.start({"services": {server.name: server.configured()}})
    last_line = "AttributeError: 'Server' object has no attribute 'list_resources'"
    with pytest.raises(StartFailed) as failure:
        await mcp.client.create("visit", server.name)
    assert failure.value.message.endswith(f"(exit code 1): {last_line}")
    assert failure.value.details["exit_code"] == 1
    assert failure.value.details["stderr"].startswith("Traceback (most recent call last):")
    assert failure.value.details["stderr"].endswith(last_line)
    rejected = await mcp.event("rejected", session_id="visit")
    assert (rejected.data["code"], rejected.data["message"]) == ("START_FAILED", failure.value.message)
    assert servers_of(worker) == []
    assert (await mcp.client.list_sessions()).sessions == {}
    row.result = f"`START_FAILED`, `{last_line}`"
