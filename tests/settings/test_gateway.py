"""The configuration of SignalWire's MCP gateway is read as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from consumer.settings import ConfigurationError, describe, load_settings
from consumer.settings.gateway_settings import GatewaySettings, certificate_problem
from schemas.ids import ServiceName

SAMPLE: dict[str, Any] = {
    "server": {
        "host": "${MCP_HOST|0.0.0.0}",
        "port": "${MCP_PORT|8100}",
        "auth_user": "${MCP_AUTH_USER|admin}",
        "auth_password": "${MCP_AUTH_PASSWORD|changeme}",
        "auth_token": "${MCP_AUTH_TOKEN|}",
    },
    "services": {
        "todo": {
            "command": ["python3", "./test/todo_mcp.py"],
            "description": "Simple todo list",
            "enabled": True,
            "sandbox": {"enabled": True, "resource_limits": True, "restricted_env": True},
        },
        "example_shell": {
            "command": ["python3", "./shell_mcp.py"],
            "enabled": False,
            "sandbox": {"enabled": False, "note": "needs the whole system"},
        },
        "example_filesystem": {
            "command": ["python3", "./files_mcp.py"],
            "enabled": False,
            "sandbox": {
                "enabled": True,
                "resource_limits": True,
                "restricted_env": False,
                "allowed_paths": ["/home/user/documents", "/tmp"],
                "working_dir": "/home/user",
                "note": "reads the user's files",
            },
        },
    },
    "session": {
        "default_timeout": "${MCP_SESSION_TIMEOUT|300}",
        "max_sessions_per_service": "${MCP_MAX_SESSIONS|100}",
        "cleanup_interval": "${MCP_CLEANUP_INTERVAL|60}",
        "sandbox_dir": "./sandbox",
    },
    "rate_limiting": {
        "default_limits": ["200 per day", "50 per hour"],
        "tools_limit": "30 per minute",
        "storage_uri": "memory://",
    },
    "logging": {"level": "${MCP_LOG_LEVEL|INFO}", "file": "${MCP_LOG_FILE|gateway.log}"},
}


def written(tmp_path: Path, table: dict[str, Any]) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(table))
    return path


def test_the_sample_is_read_with_its_defaults(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, SAMPLE), env={})
    assert settings.session.default_timeout == 300
    assert settings.session.max_sessions_per_service == 100
    assert settings.session.cleanup_interval == 60
    assert settings.session.sandbox_dir == Path("sandbox")
    assert settings.services[ServiceName("todo")].command == ["python3", "./test/todo_mcp.py"]
    assert [name for name, service in settings.services.items() if service.enabled] == ["todo"]
    assert settings.services[ServiceName("example_filesystem")].sandbox.working_dir == "/home/user"
    assert settings.worker.log_level == "info"


def test_its_variables_are_filled_in(tmp_path: Path) -> None:
    env = {"MCP_SESSION_TIMEOUT": "45.5", "MCP_MAX_SESSIONS": "3", "MCP_LOG_LEVEL": "DEBUG"}
    settings = load_settings(written(tmp_path, SAMPLE), env=env)
    assert settings.session.default_timeout == 45.5
    assert settings.session.max_sessions_per_service == 3
    assert settings.worker.log_level == "debug"


def test_what_has_no_meaning_here_is_named_in_a_warning(tmp_path: Path) -> None:
    warnings = load_settings(written(tmp_path, SAMPLE), env={}).warnings
    assert [line.partition(":")[0] for line in warnings] == ["logging.file", "gateway.auth_password"]
    assert not any("changeme" in line for line in warnings)


def test_the_published_token_is_warned_of_like_the_published_password(tmp_path: Path) -> None:
    server = {"auth_user": "admin", "auth_password": "tulip", "auth_token": "${MCP_AUTH_TOKEN|optional-bearer-token}"}
    settings = load_settings(written(tmp_path, SAMPLE | {"server": server}), env={})
    assert settings.gateway.listens_on == "127.0.0.1"
    [warning] = [line for line in settings.warnings if line.startswith("gateway.")]
    assert warning == (
        "gateway.auth_token: everybody knows this published token, so the gateway listens on 127.0.0.1 only"
    )


def test_a_variable_in_the_middle_of_a_text_is_filled_in(tmp_path: Path) -> None:
    table = {"services": {"a": {"command": ["run", "${BASE|/opt}/tools/${NAME}.py"], "env": {"PORT": "${PORT|80}"}}}}
    service = load_settings(written(tmp_path, table), env={"NAME": "todo"}).services[ServiceName("a")]
    assert service.command == ["run", "/opt/tools/todo.py"]
    assert service.env == {"PORT": "80"}


def test_a_variable_that_is_set_but_empty_is_empty(tmp_path: Path) -> None:
    table = {"services": {"a": {"command": ["x"], "description": "${ABOUT|nothing}"}}}
    assert load_settings(written(tmp_path, table), env={"ABOUT": ""}).services[ServiceName("a")].description == ""


def test_a_variable_that_is_nowhere_is_a_fault_where_it_is_used(tmp_path: Path) -> None:
    table = {
        "services": {"a": {"command": ["x", "${TOKEN}"], "env": {"KEY": "${KEY}"}}},
        "server": {"auth_password": "${UNUSED}"},
    }
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, table), env={})
    keys = [fault.key for fault in caught.value.faults]
    assert keys[:3] == ["services.a.command[1]", "services.a.env.KEY", "server.auth_password"]
    assert "write ${TOKEN|default}" in str(caught.value)


def test_our_own_level_goes_before_the_gateways(tmp_path: Path) -> None:
    table = {**SAMPLE, "worker": {"log_level": "error"}}
    assert load_settings(written(tmp_path, table), env={}).worker.log_level == "error"
    assert load_settings(written(tmp_path, table), env={"MCP_SESSIONS_LOG_LEVEL": "debug"}).worker.log_level == "debug"


KEY = "0123456789abcdef0123456789abcdef"


def warnings_of(folder: Path, **gateway: Any) -> tuple[str, ...]:
    path = folder / "ours.json"
    path.write_text(json.dumps({"gateway": gateway}))
    return load_settings(path, env={}).warnings


@pytest.mark.parametrize(
    ("gateway", "told"),
    [
        ({"signing_keys": [KEY]}, "neither gateway.public_url nor trusted_proxies is set"),
        ({"webhooks": {"twilio": {"keys": [KEY]}}}, "neither gateway.public_url nor trusted_proxies is set"),
        ({"call_timeout": 29}, "gateway.call_timeout: SignalWire's agents give up after 30 s"),
        ({"document": "/nowhere/call.xml"}, "gateway.document: there is no file '/nowhere/call.xml'"),
    ],
)
def test_what_is_hardly_meant_of_a_gateway_is_warned_of(tmp_path: Path, gateway: dict[str, Any], told: str) -> None:
    assert any(warning.startswith(told) for warning in warnings_of(tmp_path, **gateway))


def test_the_signing_key_of_the_guide_is_warned_of_wherever_the_gateway_listens(tmp_path: Path) -> None:
    published: dict[str, Any] = {"signing_keys": ["PSKtest1234567890abcdef"], "public_url": "https://calls.example.com"}
    everywhere = {"host": "0.0.0.0", "auth_user": "a", "auth_password": "tulip"}
    for gateway in (published, published | everywhere):
        (told,) = [one for one in warnings_of(tmp_path, **gateway) if one.startswith("gateway.signing_keys")]
        assert "everybody knows this published key" in told
        assert "PSK" not in told


def test_a_gateway_as_it_is_meant_is_not_warned_of(tmp_path: Path) -> None:
    document = tmp_path / "call.xml"
    document.write_text("<Response/>")
    gateway = {"signing_keys": [KEY], "public_url": "https://calls.example.com", "document": str(document)}
    assert not [warning for warning in warnings_of(tmp_path, **gateway) if "gateway" in warning]


@pytest.mark.parametrize(
    ("service", "gateway", "told"),
    [
        ({"command": ["uvx", "x"]}, {}, "uvx downloads at each start: install the package once"),
        ({"command": ["x"], "start_timeout": 25}, {}, "make it shorter"),
        ({"command": ["x"], "start_timeout": 10}, {"call_timeout": 10}, "make it shorter"),
        ({"command": ["x"], "start_timeout": 24}, {}, ""),
        ({"command": ["uvx", "x"], "start_timeout": 20}, {}, ""),
        ({"command": ["x"]}, {}, ""),
        ({"command": ["uvx", "x"], "enabled": False}, {}, ""),
        ({"command": ["uvx", "x"]}, None, ""),
    ],
)
def test_a_start_that_may_outlast_a_tool_call_is_warned_of(
    tmp_path: Path, service: dict[str, Any], gateway: dict[str, Any] | None, told: str
) -> None:
    table = {"services": {"a": service}} | ({} if gateway is None else {"gateway": {"port": 8080, **gateway}})
    warnings = load_settings(written(tmp_path, table), env={}).service_warnings
    found = [line for line in warnings if line.startswith("services.a.start_timeout: ")]
    assert [line.rpartition("; ")[2] for line in found] == ([told] if told else [])


@pytest.mark.parametrize(
    ("service", "warned"),
    [
        ({"sandbox": {"restricted_env": False}}, True),
        ({"sandbox": {"enabled": False}}, True),
        ({"sandbox": {"enabled": "false", "restricted_env": True}}, False),
        ({"sandbox": {"restricted_env": False}, "env": {"HOST": "x"}}, False),
        ({"sandbox": {"restricted_env": False}, "enabled": False}, False),
        ({"sandbox": {"kind": "none"}}, False),
        ({}, False),
    ],
)
def test_a_server_that_expects_the_whole_environment_is_warned_of(
    tmp_path: Path, service: dict[str, Any], warned: bool
) -> None:
    table = {"services": {"a": {"command": ["x"], **service}}}
    warnings = load_settings(written(tmp_path, table), env={}).service_warnings
    assert any(line.startswith("services.a.sandbox: ") for line in warnings) is warned


def test_what_the_server_says_and_the_gateway_too_is_warned_of(tmp_path: Path) -> None:
    ours = {"gateway": {"port": 9000, "host": "0.0.0.0", "rate_limits": {"call": "1 per minute"}}}
    table = SAMPLE | ours | {"server": SAMPLE["server"] | {"auth_password": "tulip"}}
    settings = load_settings(written(tmp_path, table), env={})
    assert (settings.gateway.port, settings.gateway.rate_limits.default) == (9000, ())
    assert [line for line in settings.warnings if "counts" in line] == [
        "server.port: ignored; gateway.port counts",
        "rate_limiting.default_limits: ignored; gateway.rate_limits counts",
        "rate_limiting.tools_limit: ignored; gateway.rate_limits counts",
        "rate_limiting.storage_uri: ignored; gateway.rate_limits counts",
    ]


def test_a_key_that_cannot_be_read_is_a_bad_configuration(tmp_path: Path) -> None:
    broken = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----"
    with pytest.raises(ConfigurationError, match=r"gateway\.token_keys.*cannot be read"):
        warnings_of(tmp_path, token_keys=[broken])


def test_what_a_gateway_lets_in_is_told_without_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "ours.json"
    path.write_text(json.dumps({"gateway": {"auth_user": "agent", "auth_password": "tulip", "token_keys": [KEY]}}))
    told = describe(load_settings(path, env={}))
    assert told["gateway"]["credentials"] == ["user agent", "call tokens (1 key)"]
    assert "tulip" not in json.dumps(told)
    assert KEY not in json.dumps(told)


@pytest.mark.parametrize("here", [True, False], ids=["in the working directory", "beside the file"])
def test_its_certificate_is_served_with_as_by_signalwires_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path if here else elsewhere)
    file = written(tmp_path, SAMPLE)
    assert load_settings(file, env={}).gateway.tls_cert is None
    (tmp_path / "certs").mkdir()
    own = tmp_path / "certs/server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(own)
    gateway = load_settings(file, env={}).gateway
    assert gateway.tls_cert is not None
    assert gateway.tls_cert.resolve() == own
    assert certificate_problem(gateway) is None
    ours = SAMPLE | {"gateway": {"tls_cert": str(file)}}
    assert load_settings(written(tmp_path, ours), env={}).gateway.tls_cert == file
    other = {"services": SAMPLE["services"]}
    assert load_settings(written(tmp_path, other), env={}).gateway.tls_cert is None


def test_a_certificate_that_cannot_be_served_with_is_named(tmp_path: Path) -> None:
    issued, other = (trustme.CA().issue_cert("localhost") for _ in range(2))
    cert, key, both, text = (tmp_path / name for name in ("cert.pem", "key.pem", "both.pem", "text.pem"))
    issued.cert_chain_pems[0].write_to_path(cert)
    other.private_key_pem.write_to_path(key)
    issued.private_key_and_cert_chain_pem.write_to_path(both)
    text.write_text("nothing of the kind")
    for given, problem in (
        ({"tls_cert": both}, None),
        ({"tls_cert": cert}, ("gateway.tls_cert", f"{cert} has no private key")),
        ({"tls_cert": text}, ("gateway.tls_cert", f"{text} has no certificate")),
        ({"tls_cert": cert, "tls_key": text}, ("gateway.tls_key", f"{text} has no private key")),
        ({"tls_cert": cert, "tls_key": key}, ("gateway.tls_key", f"the private key in {key} is not that of")),
    ):
        found = certificate_problem(GatewaySettings(**given))
        assert (found is None) is (problem is None), given
        if found and problem:
            assert found[0] == problem[0]
            assert found[1].startswith(problem[1])


def test_what_of_the_server_is_misspelt_is_asked_about(tmp_path: Path) -> None:
    table = SAMPLE | {"server": SAMPLE["server"] | {"prot": 1, "workers": 2}}
    warnings = load_settings(written(tmp_path, table), env={}).warnings
    assert "server.prot: ignored; did you mean 'port'?" in warnings
    assert "server.workers: ignored; see [gateway]" in warnings


def test_a_wrong_item_of_a_list_is_no_missing_item_as_well(tmp_path: Path) -> None:
    def faults(scopes: list[str]) -> dict[str, str]:
        gateway = {"tokens": [{"name": "a", "sha256": "0" * 64, "scopes": scopes}]}
        with pytest.raises(ConfigurationError) as caught:
            load_settings(written(tmp_path, {"services": SAMPLE["services"], "gateway": gateway}), env={})
        return {fault.key: fault.problem for fault in caught.value.faults}

    told = faults(["mcpp"])
    assert list(told) == ["gateway.tokens[0].scopes[0]"]
    assert told["gateway.tokens[0].scopes[0]"].endswith("it is 'mcpp'")
    assert list(faults([])) == ["gateway.tokens[0].scopes"]


def test_a_fault_says_the_given_value_once_and_what_its_setting_takes(tmp_path: Path) -> None:
    gateway = {
        "tokens": [{"name": "a", "sha256": "zz", "scopes": ["events"]}],
        "rate_limits": {"call": ["often"]},
        "tls_cert": "nowhere.pem",
        "public_url": "gateway.example.com",
    }
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, {"services": SAMPLE["services"], "gateway": gateway}), env={})
    problems = {fault.key: fault.problem for fault in caught.value.faults}
    assert problems["gateway.rate_limits.call"] == "'often' is not a rate; write it like: 10 per minute"
    assert problems["gateway.tls_cert"] == "there is no file 'nowhere.pem'"
    assert problems["gateway.public_url"].startswith("must be an address like https://")
    assert problems["gateway.tokens[0].sha256"].startswith("must be 64 hexadecimal digits")
