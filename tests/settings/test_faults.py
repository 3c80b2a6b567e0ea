"""A wrong configuration stops the start with every fault named, by key, in one go."""

import json
from pathlib import Path

import pytest

from consumer.calls.routes import Route, odd_fields
from consumer.processes.search_path import search_path
from consumer.settings import ConfigurationError, load_settings
from consumer.telephony import Translated, translate
from tests.telephony.shapes import manifest, raw


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(text: str | None = None, name: str = "mcp-sessions.toml", **env: str) -> dict[str, str]:
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Path(name) if text is not None else None, env=env)
    return {fault.key: fault.problem for fault in caught.value.faults}


def test_all_faults_of_file_and_environment_come_at_once() -> None:
    found = faults(
        """
        [sesion]
        default_timeout = 3
        [session]
        defalt_timeout = 3
        max_total_sessions = "many"
        [services.todo]
        comand = ["x"]
        [services.both]
        command = ["x"]
        url = "https://x"
        start_timeout = -1
        [services.two]
        url = "https://y"
        sandbox = { memory = "lots" }
        [[routes]]
        services = ["todo", "tood"]
        timeout = "soon"
        match = { to = 5 }
        [[routes]]
        match = {}
        [worker]
        call_exchanges = [{ exchnge = "TAP.Events" }]
        """,
        MCP_SESSIONS_PREFX="x",
        MCP_SESSIONS_HEARTBEAT="fast",
        AMQP_URL="http://user:hunter2@host",
    )
    assert found.keys() == {
        "sesion",
        "session.defalt_timeout",
        "session.max_total_sessions",
        "services.todo.comand",
        "services.both",
        "services.both.start_timeout",
        "services.two.sandbox.memory",
        "routes[0].services",
        "routes[0].timeout",
        "routes[0].match.to",
        "routes[1].services",
        "worker.call_exchanges[0].exchnge",
        "worker.call_exchanges[0].exchange",
        "MCP_SESSIONS_PREFX",
        "MCP_SESSIONS_HEARTBEAT",
        "AMQP_URL",
    }
    assert "did you mean session?" in found["sesion"]
    assert "did you mean default_timeout?" in found["session.defalt_timeout"]
    assert "did you mean command?" in found["services.todo.comand"]
    assert "did you mean exchange?" in found["worker.call_exchanges[0].exchnge"]
    assert "did you mean MCP_SESSIONS_PREFIX?" in found["MCP_SESSIONS_PREFX"]
    assert found["routes[0].services"] == "there is no service 'tood'; did you mean 'todo'? configured: todo, both, two"
    assert found["session.max_total_sessions"] == "must be a whole number; it is 'many'"
    assert found["routes[1].services"] == "is missing"


def test_a_service_that_is_like_none_is_told_with_those_that_there_are() -> None:
    found = faults('[services.todo]\ncommand = ["x"]\n[[routes]]\nservices = ["weather"]')
    assert found["routes[0].services"] == "there is no service 'weather'; configured: todo"


def test_what_must_be_a_list_is_told_with_the_list_to_write() -> None:
    found = faults('[services.todo]\ncommand = ["x"]\n[[routes]]\nservices = "todo"')
    assert found["routes[0].services"] == 'must be a list: write ["todo"]'


def test_a_key_of_a_match_that_is_no_field_is_named() -> None:
    route = '[services.a]\ncommand = ["sh"]\n[[routes]]\nservices = ["a"]\n'
    Path("mcp-sessions.toml").write_text(route + 'match = { too = "+1555*", tenant = "acme", sip_header_to = "x" }')
    odd = [one for one in load_settings(env={}).service_warnings if "match" in one]
    assert len(odd) == 1
    assert odd[0].startswith("routes[0].match.too: a call event has no such field; did you mean to?")


def test_no_attribute_of_a_platform_is_taken_for_a_field_that_is_misspelt() -> None:
    seen = {name for file in manifest() for name in attributes(file["file"])}
    assert len(seen) > 30
    assert odd_fields(Route(match=dict.fromkeys(sorted(seen), "*"), services=())) == []


def attributes(file: str) -> list[str]:
    found = translate(raw(file))
    return list(found.event.attributes) if isinstance(found, Translated) else []


def test_a_fault_behind_another_one_is_found() -> None:
    found = faults(
        """
        [services.both]
        command = ["x"]
        url = "https://x"
        start_timeout = "soon"
        [services.misspelt]
        comand = ["x"]
        [services.wrong]
        command = 5
        [services.order]
        command = ["x"]
        call_timeout = 60
        max_call_timeout = 5
        start_timeout = "soon"
        [[routes]]
        match = { direction = "incoming", to = "+1*" }
        services = ["all"]
        """
    )
    assert found == {
        "services.both": "give either command or url",
        "services.both.start_timeout": "must be a number; it is 'soon'",
        "services.misspelt.comand": "is unknown; did you mean command?",
        "services.wrong.command": "must be a list: [...]",
        "services.order": "max_call_timeout must not be below call_timeout",
        "services.order.start_timeout": "must be a number; it is 'soon'",
        "routes[0].services": "there is no service 'all'; configured: both, misspelt, wrong, order",
        "routes[0].match": "direction: 'incoming' never matches; a call is inbound, outbound or internal",
    }


def test_a_key_that_belongs_into_a_table_beside_it_is_told_with_that_table() -> None:
    found = faults('[services.slow]\ncommand = ["x"]\nworking_dir = "/srv"\nsandbox.min = 1\n[worker]\nprocesses = 5')
    assert found["services.slow.working_dir"] == "is unknown; did you mean sandbox.working_dir?"
    assert found["services.slow.sandbox.min"].startswith("is unknown")
    assert "sandbox" not in found["worker.processes"]


def test_a_section_that_is_misspelt_is_told_with_every_section_that_is_understood() -> None:
    assert faults("[loging]\nlevel = 'info'")["loging"] == "is unknown; did you mean logging?"
    known = "asterisk, gateway, logging, rate_limiting, routes, server, services, session, worker"
    assert faults("[nothing_like_it]")["nothing_like_it"] == f"is unknown; known: {known}"


def test_a_setting_of_signalwires_file_is_told_by_its_name_there() -> None:
    found = faults(
        '{"server": {"host": "::1", "port": "x"}, "rate_limiting": {"call_limit": 5}, "logging": {"level": "loud"}}',
        "config.json",
    )
    assert {"server.port", "rate_limiting.call_limit", "logging.level"} == found.keys()
    ours = '{"rate_limiting": {"call_limit": 5}, "gateway": {"rate_limits": {"call": 6}}}'
    assert faults(ours, "config.json").keys() == {"gateway.rate_limits.call"}


def test_warnings_are_told_beside_faults() -> None:
    Path("config.json").write_text(
        '{"security": {}, "services": {"a": {"command": ["no-such-program"]}}, "sesion": {}}'
    )
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Path("config.json"), env={})
    ignored, missing = caught.value.warnings
    assert ignored.startswith("security: ignored")
    assert missing.startswith("services.a.command: there is no program")


def test_a_missing_file_is_told_with_what_names_it_only_where_that_is_a_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Path("nowhere.toml"), env={})
    assert caught.value.faults[0].problem == "there is no such file"
    assert caught.value.warnings == (), "nothing is known of what would be in it"
    assert faults(MCP_SESSIONS_CONFIG="away.toml")["away.toml"] == "there is no such file; MCP_SESSIONS_CONFIG names it"


def test_the_meaning_of_a_setting_is_plain_text() -> None:
    Path("mcp-sessions.toml").write_text("[worker]\nhttp_port = 'x'")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env={})
    assert caught.value.faults[0].meaning.endswith("see observability (docs/operations/observability.md).")


def test_a_program_that_is_not_there_is_warned_of() -> None:
    Path("mcp-sessions.toml").write_text(
        '[services.gone]\ncommand = ["no-such-program", "-x"]\n[services.there]\ncommand = ["sh"]\n'
        '[services.off]\ncommand = ["no-such-either"]\nenabled = false\n[services.elsewhere]\nurl = "http://127.0.0.1/"'
    )
    told = [one for one in load_settings(env={}).service_warnings if "no program" in one]
    assert len(told) == 1
    assert told[0].startswith("services.gone.command: there is no program 'no-such-program' on this machine")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("python3 ./nosuch.py", True),
        ("python3 -u nosuch.py --flag", True),
        ("node missing.mjs", True),
        ("sh /no/such/script", True),
        ("python3 ./there.py", False),
        ("python3 -m nosuch.py", False),
        ("sh -c ./nosuch.py", False),
        ("python3 nosuch", False),
        ("env ./nosuch.py", False),
    ],
)
def test_a_script_that_is_not_there_is_warned_of_where_it_is_clearly_one(command: str, missing: bool) -> None:
    Path("there.py").touch()
    Path("bin").mkdir()
    (Path("bin") / "node").touch(mode=0o755)  # which this machine may not have
    service = {"command": command.split(), "env": {"PATH": f"{Path('bin').absolute()}:{search_path()}"}}
    Path("config.json").write_text(json.dumps({"services": {"a": service}}))
    told = [one for one in load_settings(Path("config.json"), env={}).service_warnings if "there is no" in one]
    assert bool(told) is missing
    for one in told:
        assert one.startswith("services.a.command: there is no file '")
        assert one.endswith("; correct its path")


def test_a_script_is_looked_for_where_its_program_runs() -> None:
    Path("servers").mkdir()
    (Path("servers") / "there.py").touch()
    service = {"command": ["python3", "there.py"], "sandbox": {"working_dir": "servers"}}
    Path("config.json").write_text(json.dumps({"services": {"a": service}}))
    assert load_settings(Path("config.json"), env={}).service_warnings == ()


@pytest.mark.parametrize("command", ["python3 server.py", ["python3", "server.py"]], ids=["text", "list"])
def test_a_service_with_a_command_and_a_url_is_told_so_whatever_else_is_wrong_with_either(command: object) -> None:
    table = {"a": {"command": command, "url": "http://127.0.0.1/"}}
    found = faults(json.dumps({"services": table}), "config.json")
    assert found["services.a"] == "give either command or url"
    assert ("services.a.command" in found) is isinstance(command, str)
    found = faults(MCP_SESSIONS_SERVICES=json.dumps(table))
    assert [key for key, problem in found.items() if problem == "give either command or url"] == [
        "MCP_SESSIONS_SERVICES (a)"
    ]


def test_the_error_is_a_list_for_people() -> None:
    Path("mcp-sessions.toml").write_text("[worker]\nprefix = 5\ngrace = 0\n[services.a]\ncommand=['x']")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env={})
    assert str(caught.value).splitlines() == [
        "the configuration has 2 faults:",
        "  worker.prefix: must be text in quotes; it is 5",
        "  worker.grace: must be greater than 0; it is 0",
    ]


def test_a_service_needs_one_way_in() -> None:
    found = faults('[services.none]\n[services.both]\ncommand = ["x"]\nurl = "https://x"')
    assert found == {"services.none": "give either command or url", "services.both": "give either command or url"}


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:port/", "localhost:8000/mcp"])
def test_the_url_of_a_service_is_one_of_http(url: str) -> None:
    [(key, problem)] = faults(f'[services.remote]\nurl = "{url}"').items()
    assert (key, "; it is" in problem) == ("services.remote.url", False), "it may hold a secret"
    assert "write http://host:port/path" in problem


def test_a_lifetime_may_be_without_a_limit_and_not_negative() -> None:
    found = faults("[session]\nmax_lifetime = -1")
    assert found["session.max_lifetime"].startswith("must be a number of seconds, or 0 for no limit")


def test_one_port_for_two_servers_is_warned_of() -> None:
    Path("mcp-sessions.toml").write_text("[worker]\nhttp_port = 8080\n[gateway]\nport = 8080\n")
    assert any("the gateway's port, too" in one for one in load_settings(env={}).warnings)
    Path("mcp-sessions.toml").write_text("[worker]\nhttp_port = 9464\n[gateway]\nport = 8080\n")
    assert load_settings(env={}).warnings == ()


def test_the_name_of_a_service_has_letters_and_digits() -> None:
    found = faults('[services."my service"]\ncommand = ["x"]')
    assert list(found) == ["services.my service"]
    assert "1 to 64 letters" in found["services.my service"]


def test_a_service_cannot_call_itself_otherwise_than_its_key() -> None:
    assert "has the name 'b'" in faults('[services.a]\nname = "b"\ncommand = ["x"]')["services"]


def test_broken_toml_is_named_with_its_line() -> None:
    found = faults("[session]\ndefault_timeout = \n")
    assert "at line 2" in found["mcp-sessions.toml"]


def test_broken_json_is_named_with_its_line() -> None:
    found = faults('{\n  "session": {,}\n}', name="config.json")
    assert "at line 2" in found["config.json"]


def test_json_that_is_no_table_is_told_so() -> None:
    assert "table" in faults("[1, 2]", name="config.json")["config.json"]


def test_bytes_that_are_no_text_are_told_so() -> None:
    Path("mcp-sessions.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is not text in UTF-8: save it in this encoding"):
        load_settings(env={})


def test_a_file_that_is_not_there_is_a_fault_only_when_it_was_named() -> None:
    assert "no such file" in faults(MCP_SESSIONS_CONFIG="/nowhere/x.toml")["/nowhere/x.toml"]
    assert load_settings(env={}).path is None


def test_an_unreadable_file_does_not_hide_the_faults_of_the_environment() -> None:
    assert faults("[", MCP_SESSIONS_GRACE="-1").keys() == {"mcp-sessions.toml", "MCP_SESSIONS_GRACE"}


def test_json_in_the_environment_is_checked_like_the_file() -> None:
    found = faults(
        MCP_SESSIONS_SERVICES='{"a": {"comand": ["x"]}}',
        MCP_SESSIONS_CALL_EXCHANGES='[{"exchange": "x"',
        MCP_SESSIONS_ROUTES='[{"services": ["b"]}]',
    )
    assert "did you mean command?" in found["MCP_SESSIONS_SERVICES (a.comand)"]
    assert "is not JSON" in found["MCP_SESSIONS_CALL_EXCHANGES"]
    assert "there is no service 'b'" in found["routes[0].services"]


def test_sections_of_the_wrong_shape_are_told_so() -> None:
    found = faults("session = 5\nservices = 'x'\nroutes = 1\nworker = []", MCP_SESSIONS_PREFIX="p")
    assert found.keys() >= {"session", "services", "routes", "worker"}


def test_a_route_cannot_name_a_service_twice_or_take_the_key_of_the_call() -> None:
    found = faults(
        '[services.a]\ncommand = ["x"]\n[[routes]]\nservices = ["a", "a"]\n[[routes]]\nservices = []\n'
        "metadata = { call = 1 }"
    )
    assert "names a twice" in found["routes[0].services"]
    assert "reserved for the call event" in found["routes[1].metadata"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rabbit.example", "must begin with amqp://"),
        ("amqp://", "has no host"),
        ("amqp://user:p@ss/word@host:x/", "%2F"),
        ("amqp://host:0/", "port 0"),
        ("amqp://host/a/b", "write it as %2F"),
        ("amqps://host/?no_verify_ssl=false", "no_verify_ssl"),
        ("amqp://user:12/hunter2@host", "%40 for @"),
        ("amqp://user:12#hunter2@host", "%23 for #"),
        ("amqp://user:12?hunter2@host", "%3F for ?"),
        ("amqp://user:hunter/2@host", "%2F for /"),
        ("amqp://user:hunter2#@host", "%23 for #"),
        ("amqp://user:hunter@2@host", "%40 for @"),
        ("amqp://hunter/2@host", "%2F for /"),
        ("amqp://user:5672#hunter2", "%23 for #"),
        ("amqp://host/a%2Fb/hunter2", "write it as %2F"),
        ("amqp://host/?heartbeat=hunter2", "an invalid value for ?heartbeat="),
        ("amqp://host/?heartbeat=-1", "an invalid value for ?heartbeat="),
        ("amqp://host/?heartbeat=1.5", "an invalid value for ?heartbeat="),
        ("amqp://host/?heartbeat=", "an invalid value for ?heartbeat="),
        ("amqp://host/?heartbeat=65535", "65534 at most"),
        ("amqp://host/?timeout=hunter2", "an invalid value for ?timeout="),
        ("amqp://host/?auth=hunter2", "plain or external"),
        ("amqp://host/?auth=amqplain", "plain or external"),
        ("amqp://user:hunter2@host..example/", "an invalid host name"),
        ("amqp://user:hunter2@" + "h" * 64 + "/", "an invalid host name"),
        ("amqp://host/" + "hunter2" * 40, "a vhost of more than 255 bytes"),
        ("amqp://host/?interleave=hunter2", "an invalid value for ?interleave="),
        ("amqp://host/?happy_eyeballs_delay=hunter2", "an invalid value for ?happy_eyeballs_delay="),
        ("amqps://host/?cadata=hunter2!", "base64"),
        ("amqps://host/?cafile=", "it must name a file"),
    ],
)
def test_a_broker_url_that_cannot_be_used_is_explained_and_nothing_of_it_is_repeated(url: str, says: str) -> None:
    found = faults(AMQP_URL=url)["AMQP_URL"]
    assert says in found
    assert "hunter" not in found


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:p%40s%2Fs%23@host:5672/vhost?heartbeat=0",
        "amqp://user:pa:ss@host//",
        "amqp://user:password@host.example./vhost",
        "amqps://[::1]:5671/%2F?heartbeat=30&cafile=/etc/ca.pem&name=x",
    ],
)
def test_a_broker_url_that_is_well_written_is_taken(url: str) -> None:
    assert load_settings(env={"AMQP_URL": url}).amqp_url.get_secret_value() == url


def test_a_parameter_that_means_nothing_is_warned_of() -> None:
    warnings = load_settings(env={"AMQP_URL": "amqp://host/?heartbeet=5&connection_attempts=hunter2"}).warnings
    assert any("an unknown parameter 'heartbeet'; did you mean heartbeat?" in one for one in warnings)
    assert any("'connection_attempts'" in one and "hunter2" not in one for one in warnings)


def test_no_fault_repeats_a_secret() -> None:
    text = """
    [services.a]
    command = "run --token hunter2"
    env = { API_KEY = 12345678, PASSWORD = ["hunter2"] }
    headers = { Authorization = 12345678 }
    [worker]
    prefix = "amqp://u:hunter2@h/"
    """
    Path("mcp-sessions.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env={"AMQP_URL": "amqp://user:hunter2@host:port/"})
    assert "hunter2" not in str(caught.value)
    assert "12345678" not in str(caught.value)
    assert len(caught.value.faults) == 6


@pytest.mark.parametrize(
    "section",
    [
        'token_keys = ["hunter2"]',
        'token_keys = "hunter2"',
        "token_keys = 12345678",
        "signing_keys = [12345678]",
        'tokens = "hunter2"',
        'tokens = ["hunter2"]',
        'tokens = [{ name = "a", sha256 = "hunter2", scopes = ["events"] }]',
        'webhooks = "hunter2"',
        'webhooks = { telnyx = "hunter2" }',
        "webhooks = { telnyx = { keys = [12345678] } }",
        "auth_token = 12345678",
    ],
)
def test_no_fault_of_the_gateway_repeats_a_secret_of_the_file(section: str) -> None:
    told = str(faults(f"[gateway]\n{section}"))
    assert "hunter2" not in told
    assert "12345678" not in told


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("TOKEN_KEYS", "hunter2"),
        ("TOKENS", '"hunter2"'),
        ("TOKENS", '[{"name": "a", "sha256": "hunter2", "scopes": ["events"]}]'),
        ("WEBHOOKS", '"hunter2"'),
        ("WEBHOOKS", '{"telnyx": {"keys": [12345678]}}'),
        ("WEBHOOKS", "hunter2"),
    ],
)
def test_no_fault_of_a_variable_repeats_its_secret(setting: str, value: str) -> None:
    told = faults(**{f"MCP_SESSIONS_GATEWAY_{setting}": value})
    assert any(setting in key for key in told)
    assert "hunter2" not in str(told)
    assert "12345678" not in str(told)


def test_a_fault_beside_a_secret_repeats_what_is_none() -> None:
    told = faults('[gateway]\nport = "many"\ntokens = [{ name = "a", sha256 = "hunter2", scopes = ["evnts"] }]')
    assert told["gateway.port"].endswith("it is 'many'")
    assert told["gateway.tokens[0].scopes[0]"].endswith("it is 'evnts'")
