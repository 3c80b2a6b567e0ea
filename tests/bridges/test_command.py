"""``mcp-sessions bridge asterisk`` before it connects, and what ``config check`` says of it."""

from tests.cli.conftest import Cli, offline  # noqa: F401 - a fixture


async def test_without_credentials_it_says_what_to_set(offline: Cli):  # noqa: F811 - the fixture
    ran = await offline("bridge", "asterisk")
    assert ran.code == 2
    for name in ("user", "password"):
        assert f"asterisk.{name}: is missing" in ran.err
        assert f"MCP_SESSIONS_ASTERISK_{name.upper()}" in ran.err
    ran = await offline("bridge", "asterisk", "--json", "--user", "bridge", "--pbx", "ftp://pbx")
    assert ran.code == 2
    assert [fault["key"] for fault in ran.error["details"]["faults"]] == ["MCP_SESSIONS_ASTERISK_URL"]


async def test_config_check_knows_it(offline: Cli):  # noqa: F811 - the fixture
    offline.environment |= {
        "MCP_SESSIONS_ASTERISK_USER": "bridge",
        "MCP_SESSIONS_ASTERISK_PASSWORD": "s3cret of the PBX",
        "COLUMNS": "200",
    }
    ran = await offline("config", "check")
    assert ran.code == 0
    assert "http://127.0.0.1:8088 as bridge, application mcp-sessions, all channels" in ran.out
    told = (await offline("config", "check", "--json")).json["asterisk"]
    assert (told["user"], told["password"]) == ("bridge", "***")
    offline.environment["MCP_SESSIONS_ASTERISK_MAX_KEPT"] = "none"
    ran = await offline("config", "check")
    assert ran.code == 2
    assert "MCP_SESSIONS_ASTERISK_MAX_KEPT" in ran.err
