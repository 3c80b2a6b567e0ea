"""The page of the docs that a run has written."""

from tests.harness import ROOT

from .install import HERE, version_of

SERVERS = {
    "today": ("mcp-server-time", "mcp-server-git", "mcp-server-fetch", "mcp-server-sqlite"),
    "before": ("mcp-server-calculator", "mcp-shell-server", "mcp-server-sqlite"),
    "node": tuple(
        f"@modelcontextprotocol/server-{name}" for name in ("everything", "filesystem", "memory", "sequential-thinking")
    ),
}


def test_the_page_tells_of_every_server_at_its_version_and_that_each_did_what_it_should():
    page = (ROOT / "docs" / "servers.md").read_text()
    for name, packages in SERVERS.items():
        for package in packages:
            version = version_of(package, name)
            assert f"| `{package}` | {version} |" in page, "scripts/realservers makes docs/servers.md anew"
    rows, through = (
        [line for line in part.splitlines() if line.startswith("| `")] for part in page.split("## Through the MCP")
    )
    results = [line.rsplit("|", 2)[1].strip() for line in rows]
    assert len(through) == results.count("works"), "each was seen through the endpoint as well"
    assert [result for result in results if result != "works"] == [
        "`START_FAILED`, `AttributeError: 'Server' object has no attribute 'list_resources'`"
    ]


def test_no_list_tells_where_to_fetch_from():
    for listed in HERE.glob("*.txt"):
        assert "://" not in listed.read_text()
