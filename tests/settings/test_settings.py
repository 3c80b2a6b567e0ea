"""Settings: where they come from, and which of two wins."""

import json
import sys
from pathlib import Path

import pytest

from consumer.settings import CallExchangeSettings, Settings, describe, load_settings
from schemas.ids import ServiceName

TOML = """
[session]
default_timeout = 120
max_total_sessions = 7
max_lifetime = 0

[services.todo]
command = ["python3", "-m", "todo_server"]
description = "Todo list"
env = { TODO_API_KEY = "s3cret" }
warm = { min = 1, max = 2 }

[services.weather]
url = "https://weather.example/mcp"
enabled = false

[[routes]]
match = { direction = "inbound", to = "+1555*" }
services = ["todo"]
timeout = 600
metadata = { tenant = "acme" }

[worker]
prefix = "phones"
call_exchanges = [{ exchange = "TAP.Events", routing_key = "*.CHANNEL_*.#" }]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(folder: Path, text: str = TOML, name: str = "mcp-sessions.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_toml_file_is_read_by_section(folder: Path) -> None:
    settings = load_settings(toml(folder), env={})
    assert settings.session.default_timeout == 120
    assert settings.session.max_total_sessions == 7
    assert settings.session.cleanup_interval == 60
    assert list(settings.services) == ["todo", "weather"]
    assert settings.services[ServiceName("todo")].name == "todo"
    assert settings.services[ServiceName("weather")].transport == "http"
    assert settings.routes[0].services == ("todo",)
    assert settings.routes[0].metadata == {"tenant": "acme"}
    assert settings.worker.prefix == "phones"
    assert settings.worker.call_exchanges == (CallExchangeSettings(exchange="TAP.Events", routing_key="*.CHANNEL_*.#"),)
    assert settings.warnings == ()


def test_a_lifetime_of_0_is_for_ever(folder: Path) -> None:
    assert load_settings(toml(folder), env={}).session.max_lifetime is None
    assert load_settings(env={"MCP_SESSIONS_MAX_LIFETIME": "0"}).session.max_lifetime is None
    assert load_settings(env={"MCP_SESSIONS_MAX_LIFETIME": "60"}).session.max_lifetime == 60


def test_json_is_told_by_the_suffix_or_by_its_first_letter(folder: Path) -> None:
    text = json.dumps({"services": {"a": {"command": ["x"]}}})
    for name in ("config.json", "config", "config.conf"):
        assert list(load_settings(toml(folder, text, name), env={}).services) == ["a"]
    assert list(load_settings(toml(folder, '[services.b]\ncommand = ["x"]', "settings.conf"), env={}).services) == ["b"]


def test_the_argument_goes_before_the_variable_and_the_variable_before_the_working_directory(folder: Path) -> None:
    here = toml(folder, '[worker]\nprefix = "here"\n[services.a]\ncommand = ["x"]')
    named = toml(folder, '[worker]\nprefix = "named"\n[services.a]\ncommand = ["x"]', "named.toml")
    given = toml(folder, '[worker]\nprefix = "given"\n[services.a]\ncommand = ["x"]', "given.toml")
    variable = {"MCP_SESSIONS_CONFIG": str(named)}
    assert load_settings(given, env=variable).worker.prefix == "given"
    assert load_settings(env=variable).worker.prefix == "named"
    assert load_settings(env={"MCP_SESSIONS_CONFIG": ""}).worker.prefix == "here"
    assert load_settings(env={}).path == here.relative_to(folder)


def test_without_a_file_there_is_a_todo_service_and_a_warning() -> None:
    settings = load_settings(env={})
    assert settings.services[ServiceName("todo")].command == [sys.executable, "-m", "consumer.processes.todo_server"]
    assert settings.path is None
    assert settings.warnings == (), "a gateway does without services"
    assert len(settings.service_warnings) == 1
    assert "mcp-sessions.toml" in settings.service_warnings[0]


def test_any_single_setting_comes_from_the_environment_over_the_file(folder: Path) -> None:
    env = {
        "MCP_SESSIONS_DEFAULT_TIMEOUT": "60",
        "MCP_SESSIONS_PREFIX": "test",
        "MCP_SESSIONS_HEARTBEAT": "5.5",
        "MCP_SESSIONS_LOG_LEVEL": "WARNING",
        "MCP_SESSIONS_CALL_EXCHANGES": '[{"exchange": "callevt", "type": "topic", "routing_key": "call.#"}]',
    }
    settings = load_settings(toml(folder), env=env)
    assert settings.session.default_timeout == 60
    assert settings.session.max_total_sessions == 7
    assert settings.worker.prefix == "test"
    assert settings.worker.heartbeat == 5.5
    assert settings.worker.log_level == "warning"
    assert [one.exchange for one in settings.worker.call_exchanges] == ["callevt"]


def test_services_and_routes_from_the_environment_replace_those_of_the_file(folder: Path) -> None:
    services = {"MCP_SESSIONS_SERVICES": '{"echo": {"command": ["echo"]}}', "MCP_SESSIONS_ROUTES": "[]"}
    settings = load_settings(toml(folder), env=services)
    assert list(settings.services) == ["echo"]
    assert settings.routes == ()


def test_services_from_the_environment_alone_need_no_file_and_no_warning() -> None:
    settings = load_settings(env={"MCP_SESSIONS_SERVICES": '{"echo": {"command": ["echo"]}}'})
    assert list(settings.services) == ["echo"]
    assert settings.warnings == ()


def test_an_empty_variable_counts_as_not_set(folder: Path) -> None:
    env = {"MCP_SESSIONS_DEFAULT_TIMEOUT": "", "MCP_SESSIONS_WORKER_ID": "", "AMQP_URL": ""}
    settings = load_settings(toml(folder), env=env)
    assert settings.session.default_timeout == 120
    assert settings.worker.worker_id is None


def test_the_mark_of_a_workers_child_is_no_setting() -> None:
    assert load_settings(env={"MCP_SESSIONS_WORKER": "w1"}).worker.worker_id is None


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "amqp://guest:guest@localhost:5672/"),
        ({"RABBITMQ_URL": "amqp://r/"}, "amqp://r/"),
        ({"RABBITMQ_URL": "amqp://r/", "CLOUDAMQP_URL": "amqps://c/v"}, "amqps://c/v"),
        ({"RABBITMQ_URL": "amqp://r/", "CLOUDAMQP_URL": "amqps://c/v", "AMQP_URL": "amqp://a/"}, "amqp://a/"),
        ({"AMQP_URL": "", "CLOUDAMQP_URL": "amqps://c/v"}, "amqps://c/v"),
    ],
)
def test_the_broker_is_where_the_first_variable_that_is_set_says(env: dict[str, str], url: str) -> None:
    assert load_settings(env=env).amqp_url.get_secret_value() == url


def test_the_brokers_password_is_never_printed() -> None:
    url = "amqps://worker:hunter2@rabbit.example:5671/calls?cafile=/secret/path"
    settings = load_settings(env={"AMQP_URL": url})
    for told in (str(settings.amqp_url), repr(settings), str(settings), settings.model_dump_json(), f"{settings!r}"):
        assert "hunter2" not in told
        assert "/secret/path" not in told
    assert str(settings.amqp_url) == "amqps://worker:***@rabbit.example:5671/calls"
    assert settings.amqp_url.get_secret_value() == url


def test_settings_do_not_change(folder: Path) -> None:
    settings = load_settings(toml(folder), env={})
    with pytest.raises(ValueError, match="frozen"):
        settings.worker.prefix = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        settings.routes = ()  # type: ignore[misc]


def test_settings_made_directly_read_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(folder)
    monkeypatch.setenv("MCP_SESSIONS_PREFIX", "other")
    monkeypatch.setenv("WORKER", '{"prefix": "other"}')
    assert Settings().worker.prefix == "mcp"
    assert load_settings().worker.prefix == "other"


def test_a_description_has_everything_but_secrets(folder: Path) -> None:
    text = TOML + (
        '\n[services.crm]\ncommand = ["crm", "--api-key", "k-1234", "--token=t-5678", "-v"]\n'
        'headers = {}\nenv = { PASSWORD = "p-9999" }\n'
    )
    env = {"AMQP_URL": "amqp://u:pw-0000@h/"}
    told = describe(load_settings(toml(folder, text), env=env))
    printed = json.dumps(told)
    for secret in ("s3cret", "k-1234", "t-5678", "p-9999", "pw-0000"):
        assert secret not in printed
    assert told["broker"] == "amqp://u:***@h/"
    assert told["services"]["todo"]["env"] == {"TODO_API_KEY": "***"}
    assert told["services"]["crm"]["command"] == ["crm", "--api-key", "***", "--token=***", "-v"]
    assert told["routes"][0]["match"] == {"direction": ["inbound"], "to": ["+1555*"]}
    assert told["worker"]["prefix"] == "phones"


def test_what_is_hardly_meant_gives_a_warning(folder: Path) -> None:
    text = TOML + '[[routes]]\nservices = ["weather"]\n[[routes]]\nservices = ["todo"]\n'
    warnings = load_settings(toml(folder, text), env={}).service_warnings
    assert any("routes[1].services: weather is disabled" in line for line in warnings)
    assert any("routes[1] matches every call" in line for line in warnings)
    nothing = load_settings(toml(folder, '[services.a]\ncommand = ["x"]\nenabled = false'), env={}).service_warnings
    assert nothing == ("no service is enabled, so calls get no session",)
