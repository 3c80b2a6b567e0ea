"""Wrong input and missing brokers: one clear answer, the right exit code, and never a traceback."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.broker.permissions import ROLES
from tests.cli.conftest import SAMPLES, TODO, Cli
from tests.harness import ECHO

BROKEN = """
[session]
default_timeout = "soon"
max_sesions = 3
[services.todo]
comand = ["todo"]
[[routes]]
match = { to = "+1*" }
services = ["nothing"]
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("tools", "call", "c-1", "add_todo", '{"text": '),
        ("tools", "call", "c-1", "add_todo", '{"text": "x"}', "more"),
        ("tools", "call", "c-1", "add_todo", "text"),
        ("sessions", "create", "c-1", "todo", "--metadata", "[1]"),
        ("sessions", "create", "c-1", "todo", "--if-exists", "maybe"),
        ("sessions", "list", "--limit", "0"),
        ("calls", "send", "no-such-file.json"),
        ("dead-letters", "drop"),
        ("dead-letters", "replay"),
        ("dead-letters", "drop", "3f9c", "--all"),
        ("dead-letters", "replay", "--all", "--reason", "defect"),
        ("dead-letters", "list", "--since", "yesterday"),
        ("no-such-command",),
    ],
)
async def test_wrong_usage_is_told_without_asking_a_broker(offline: Cli, arguments: tuple[str, ...]):
    ran = await offline(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert "BROKER" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("sessions list --limit 0", "Invalid value for '--limit': must be greater than or equal to 1"),
        ("sessions create c-1 todo --timeout soon", "Invalid value for '--timeout': must be a valid number"),
        ("topology permissions --role boss", "Invalid value for '--role': 'boss' is not one of 'publisher', "),
    ],
    ids=["limit", "timeout", "role"],
)
async def test_a_value_that_does_not_fit_is_told_in_our_words(offline: Cli, arguments: str, told: str):
    assert f"Error: {told}" in (await offline(*arguments.split())).err


async def test_an_unreachable_broker_is_named_without_its_password(offline: Cli):
    for command in (("sessions", "list"), ("topology", "verify"), ("demo",)):
        ran = await offline(*command, stdin=b"{}")
        assert (ran.code, ran.out) == (3, ""), ran
        assert ran.err.startswith("BROKER_UNREACHABLE: no RabbitMQ at amqp://")
        assert "127.0.0.1:1/" in ran.err
        assert ": the connection was refused: nobody listens there\n" in ran.err
        assert "--url" in ran.err
        assert "hush" not in ran.err
    for words in ("dead-letters replay x", "dead-letters drop x", "workers"):
        ran = await offline(*words.split(), "--json")
        assert (ran.code, ran.err, ran.error["code"]) == (3, "", "BROKER_UNREACHABLE"), "one document, and no more"
    ran = await offline("dead-letters", "replay", "--all")
    assert ran.err.startswith("BROKER_UNREACHABLE"), "nobody knows whether there are dead letters"
    ran = await offline("workers", "--json")
    assert (ran.code, ran.err, ran.error["code"]) == (3, "", "BROKER_UNREACHABLE")


@pytest.mark.parametrize("url", ["amqp://someone:12/hush@127.0.0.1:1/", "amqp://127.0.0.1:1/?heartbeat=hush"])
async def test_a_url_that_cannot_be_used_is_a_fault_and_nothing_of_it_is_told(offline: Cli, url: str):
    offline.environment["AMQP_URL"] = url
    for command in (("config", "check"), ("sessions", "list"), ("dead-letters", "list"), ("worker",), ("demo",)):
        ran = await offline(*command)
        assert (ran.code, ran.out) == (2, ""), ran
        assert "AMQP_URL: " in ran.err
        assert "hush" not in ran.err
        assert "BROKER" not in ran.err
    ran = await offline("workers", "--url", url)
    assert (ran.code, "--url: " in ran.err, "hush" in ran.err) == (2, True, False)


async def test_faults_of_options_are_told_by_the_names_of_the_options(offline: Cli):
    ran = await offline("workers", "--url", "http://host/", "--prefix", "two words")
    assert (ran.code, ran.out) == (2, "")
    assert "  --url: must begin with amqp://" in ran.err
    assert "  --prefix: must be 1 to 64" in ran.err
    assert "\n    The first word of every name on the broker.\n" in ran.err, "what the setting is for"


@pytest.mark.parametrize("program", [(), (sys.executable, "-m", "consumer")])
async def test_a_worker_names_every_fault_of_its_configuration(offline: Cli, program: tuple[str, ...]):
    (offline.folder / "mcp-sessions.toml").write_text(BROKEN)
    ran = await (offline(program=program) if program else offline("worker"))
    assert (ran.code, ran.out) == (2, "")
    for key in ("session.default_timeout", "session.max_sesions", "services.todo.comand", "routes[0].services"):
        assert key in ran.err


async def test_a_worker_without_a_broker_gives_up_in_the_time_it_has(offline: Cli):
    offline.environment["MCP_SESSIONS_CONNECT_TIMEOUT"] = "3"  # on any machine it tries twice, and says so before
    ran = await offline(program=(sys.executable, "-m", "consumer"))
    assert ran.code == 3
    assert "broker.unreachable" in ran.err
    assert ran.err.count("broker.not_there") == ran.err.count("set AMQP_URL to another one") == 1
    assert "creating transport" not in ran.err  # what the library logs for each try
    assert "hush" not in ran.err


async def test_a_configuration_is_checked(offline: Cli):
    bad = offline.folder / "bad.toml"
    bad.write_text(BROKEN)
    ran = await offline("config", "check", str(bad), "--json")
    assert (ran.code, ran.err, ran.error["code"]) == (2, "", "BAD_CONFIGURATION")
    assert len(ran.error["details"]["faults"]) >= 4

    good = offline.folder / "good.json"
    service = {"command": TODO, "env": {"API_KEY": "hush"}}
    good.write_text(json.dumps({"services": {"todo": service}, "worker": {"prefix": "acme"}}))
    ran = await offline("config", "check", str(good))
    assert ran.code == 0
    assert "todo" in ran.out
    assert "acme" in ran.out
    assert re.search(r"^drain_timeout +15 *$", ran.out, re.MULTILINE)
    assert re.search(r"^worker_id +a new one at each start *$", ran.out, re.MULTILINE)
    assert re.search(r"^http_port +none *$", ran.out, re.MULTILINE)
    assert "hush" not in ran.out
    ran = await offline("config", "check", str(good), "--json")
    assert (ran.err, ran.json["worker"]["prefix"]) == ("", "acme")


async def test_an_event_that_no_worker_knows_is_not_sent(offline: Cli):
    unknown = b'{"what": "is this"}'
    ran = await offline("calls", "send", "-", stdin=unknown)
    assert (ran.code, ran.out) == (1, ""), "and no broker was asked"
    assert ran.err.startswith("UNRECOGNISED: nothing was sent, because this is no event that a worker knows\n")
    assert ran.err.count("not its own: ") == 3
    assert "more translators fit even less: --why shows them" in ran.err
    assert ran.err.endswith("It would become a dead letter. --force sends it all the same.\n")
    assert "telnyx: not its own: " in (await offline("calls", "send", "-", "--why", stdin=unknown)).err
    ran = await offline("calls", "send", "-", stdin=b'{"call_id": "c-9", "kind": "started", "form": "+1"}')
    assert "custom: form: is unknown; did you mean from?" in ran.err
    assert "not its own" not in ran.err
    relay = str(SAMPLES / "relay" / "receive_created_phone.json")
    ran = await offline("calls", "send", relay, "-", "--json", stdin=unknown)
    assert (ran.code, ran.err, ran.error["code"]) == (1, "", "UNRECOGNISED")
    assert [one["file"] for one in ran.error["details"]["files"]] == ["-"]
    ran = await offline("calls", "send", "-", "--force", stdin=unknown)
    assert ran.code == 3, "it would have been sent"


async def test_a_dry_run_tells_what_an_event_becomes_and_needs_no_broker(offline: Cli):
    relay = str(SAMPLES / "relay" / "receive_created_phone.json")
    ran = await offline("calls", "send", relay, "--dry-run", "--json")
    [told] = ran.json["would_send"]
    assert (ran.code, told["source"], told["kind"]) == (0, "relay", "started")
    ran = await offline("calls", "send", relay, "--dry-run")
    assert re.search(r"WOULD SEND +SOURCE(?s:.*) relay +started ", ran.out)
    ran = await offline("calls", "send", relay, "-", "--dry-run", stdin=b'{"what": "is this"}')
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("UNRECOGNISED: nothing was sent, because 1 of 2 are no event")


async def test_a_certificate_that_cannot_be_used_is_a_fault_and_nobody_elses(offline: Cli):
    (offline.folder / "cert.pem").write_text("no certificate")
    (offline.folder / "mcp-sessions.toml").write_text('[gateway]\nport = 0\ntls_cert = "cert.pem"')
    ran = await offline("config", "check")
    assert ran.code == 2
    assert "  gateway.tls_cert: cert.pem has no certificate in PEM\n" in ran.err
    ran = await offline("gateway")
    assert ran.code == 2
    assert "gateway.tls_cert: cert.pem has no certificate in PEM" in ran.err
    assert (await offline("sessions", "list")).code == 3, "only who serves reads it"


async def test_a_token_for_a_service_that_is_not_configured_is_minted_with_a_warning(offline: Cli):
    (offline.folder / "mcp-sessions.toml").write_text(
        f'[services.todo]\ncommand = {json.dumps(TODO)}\n[gateway]\ntoken_keys = ["{"k" * 32}"]'
    )
    ran = await offline("calls", "token", "c-1", "--service", "todo")
    assert (ran.code, ran.err) == (0, "")
    ran = await offline("calls", "token", "c-1", "--service", "todoo")
    assert ran.code == 0
    assert "there is no service 'todoo' in mcp-sessions.toml" in ran.err


async def test_a_program_that_is_not_there_is_no_ok_and_warnings_are_told_beside_faults(offline: Cli):
    (offline.folder / "gone.toml").write_text('[services.gone]\ncommand = ["no-such-program"]')
    ran = await offline("config", "check", "gone.toml")
    assert ran.code == 0
    assert re.search(r"gone +missing +no-such-program ", ran.out)
    assert "warning: services.gone.command: there is no program" in ran.err
    (offline.folder / "bad.json").write_text('{"security": {}, "rate_limiting": {"call_limit": 5}}')
    ran = await offline("config", "check", "bad.json")
    assert (ran.code, ran.out) == (2, "")
    assert "\n  rate_limiting.call_limit: " in ran.err
    assert "\nwarning: security: ignored" in ran.err
    ran = await offline("config", "check", "nowhere.toml")
    assert "nowhere.toml: there is no such file\n" in ran.err


async def test_a_gateway_has_no_warnings_about_services(offline: Cli):
    (offline.folder / "mcp-sessions.toml").write_text("[worker]\nconnect_timeout = 0.3\n[gateway]\nport = 0")
    for program, warned in ((("gateway",), False), (("worker",), True)):
        ran = await offline(*program)
        assert ran.code == 3
        assert ("no service is enabled" in ran.err) is warned


async def test_a_source_that_no_translator_has_is_warned_of(offline: Cli):
    (offline.folder / "odd.toml").write_text(
        '[services.all]\nurl = "http://127.0.0.1/"\n[[routes]]\nservices = ["all"]\n'
        'match = { source = ["signalwire", "sw*", "relay"] }'
    )
    ran = await offline("config", "check", "odd.toml", "--json")
    (told,) = [one for one in ran.json["warnings"] if ".match.source" in one]
    assert told.startswith("routes[0].match.source: no known platform has the source 'signalwire'; known: ")
    assert "relay" in told


async def test_services_are_tried_on_this_machine(offline: Cli):
    services = {
        "todo": {"command": TODO},
        "broken": {"command": ["sh", "-c", "echo oh no >&2; exit 3"]},
        "off": {"url": "http://127.0.0.1:1/mcp", "enabled": False},
    }
    (offline.folder / "mcp-sessions.toml").write_text("")
    config = offline.folder / "services.json"
    config.write_text(json.dumps({"services": services}))
    ran = await offline("services", "check", "--config", str(config))
    assert ran.code == 1
    assert "add_todo" in ran.out
    assert ran.out.count("oh no") == 1
    assert re.search(r"todo +works +[\d.]+m?s ", ran.out)
    assert "1 of 2 work" in ran.err
    ran = await offline("services", "check", "--config", str(config), "--json")
    assert ran.code == 1
    found = ran.json["services"]
    assert (found["todo"]["ok"], found["broken"]["ok"]) == (True, False)
    assert found["broken"]["error"]["code"] == "START_FAILED"
    assert ran.json["disabled"] == ["off"]


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that servers may read whose user is none: pytest's own is private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_a_slow_start_and_a_fetched_package_are_told_with_what_to_do(offline: Cli, readable: Path):
    (offline.folder / "mcp-sessions.toml").write_text("")
    npx = readable / "npx"
    npx.write_text("#!/bin/sh\nexec python3 -S $SERVERS/echo_server.py\n")
    npx.chmod(0o755)
    services = {
        "fetched": {"command": [str(npx), "-y", "a-package"], "env": {"SERVERS": str(Path(ECHO[-1]).parent)}},
        "slow": {"command": [*ECHO, "--slow-start", "5.1"]},
        "quick": {"command": ECHO},
        "never": {"command": [*ECHO, "--slow-start", "60"], "start_timeout": 5.1},
    }
    config = offline.folder / "services.json"
    config.write_text(json.dumps({"services": services}))
    ran = await offline("services", "check", str(config), "--json")
    found = ran.json["services"]
    assert ran.code == 1
    assert found["fetched"]["advice"].startswith("npx downloads its package for each session")
    assert found["slow"]["seconds"] > 5
    assert "keep servers warm" in found["slow"]["advice"]
    assert found["quick"]["advice"] == ""
    assert found["never"]["error"]["code"] == "START_TIMEOUT"
    assert found["never"]["advice"] == "", "a server that never starts cannot be kept warm"


async def test_permissions_are_printed_for_a_shell_and_for_an_import(offline: Cli):
    ran = await offline("topology", "permissions", "--role", "publisher", "--prefix", "acme", "--vhost", "phones")
    assert (ran.code, ran.err) == (0, "")
    passwords, add, give, between, *topics = ran.out.splitlines()
    assert passwords.startswith("#")
    assert passwords.endswith(" ACME_PUBLISHER_PASSWORD")
    assert add == r"""printf '%s\n' "${ACME_PUBLISHER_PASSWORD:?}" | rabbitmqctl add_user acme-publisher"""
    assert give == r"rabbitmqctl set_permissions -p phones acme-publisher '^$' '^(acme\.calls)$' '^$' </dev/null"
    assert between.startswith("#")
    assert all(line.endswith(" </dev/null") for line in topics), "a shell that reads them from a pipe reads them all"
    assert [line.split()[:4] for line in topics] == [["rabbitmqctl", "set_topic_permissions", "-p", "phones"]] * 2
    ran = await offline("topology", "permissions", "--json")
    assert {one["user"] for one in ran.json["permissions"]} == {f"mcp-{role}" for role in ROLES}
    assert {one["vhost"] for one in ran.json["topic_permissions"]} == {"/"}
