"""What is configured of the bridge to Asterisk, and what is wrong with it."""

from pathlib import Path

import pytest

from consumer.observability import MASK
from consumer.settings import ConfigurationError, describe, load_settings

PASSWORD = {"MCP_SESSIONS_ASTERISK_USER": "bridge", "MCP_SESSIONS_ASTERISK_PASSWORD": "s3cret of the PBX"}


def faults(**env: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as found:
        load_settings(env=PASSWORD | {f"MCP_SESSIONS_ASTERISK_{name}": value for name, value in env.items()})
    return {fault.key.removeprefix("MCP_SESSIONS_ASTERISK_"): fault.problem for fault in found.value.faults}


def test_the_environment_goes_over_the_file_and_no_password_is_shown(tmp_path: Path):
    file = tmp_path / "mcp-sessions.toml"
    file.write_text('[asterisk]\nurl = "tcp://pbx.example.com"\nuser = "other"\napp = "desk"\nsubscribe_all = false\n')
    settings = load_settings(file, PASSWORD)
    own = settings.asterisk
    assert (own.url, own.user, own.app, own.subscribe_all) == ("tcp://pbx.example.com", "bridge", "desk", False)
    assert (own.speaks, own.missing) == ("ami", ())
    told = describe(settings)
    assert told["asterisk"]["password"] == MASK
    assert "s3cret" not in str(told)
    assert "s3cret" not in repr(settings)


def test_without_anything_a_bridge_misses_its_credentials():
    own = load_settings(env={}).asterisk
    assert (own.speaks, own.missing) == ("ari", ("user", "password"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://localhost:8088", "write http://127.0.0.1:8088"),
        ("localhost:5038", "write http://127.0.0.1:8088"),
        ("http://", "write http://127.0.0.1:8088"),
        ("tcp://localhost:99999", "write http://127.0.0.1:8088"),
        ("http://user:secret@localhost:8088", "set user and password separately"),
        ("http://localhost:8088/?api_key=x", "set user and password separately"),
        ("tcp://localhost:5038/ari", "has a path"),
    ],
)
def test_an_address_that_is_none_is_told_without_being_repeated(url: str, said: str):
    problem = faults(URL=url)["URL"]
    assert said in problem
    assert "secret@" not in problem


def test_what_would_be_a_second_header_of_ami_is_refused():
    for name in ("USER", "PASSWORD", "APP"):
        assert "one line" in faults(**{name: "a\r\nAction: Originate"})[name]
    assert "there is no file" in faults(TLS_CA="/no/such/file")["TLS_CA"]


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:8088", False),
        ("tcp://[::1]:5038", False),
        ("http://localhost:8088", False),
        ("https://pbx.example.com", False),
        ("tls://pbx.example.com", False),
        ("http://pbx.example.com:8088", True),
        ("tcp://192.0.2.4", True),
    ],
)
def test_a_password_on_an_open_network_is_warned_of(url: str, warned: bool):
    settings = load_settings(env=PASSWORD | {"MCP_SESSIONS_ASTERISK_URL": url})
    assert any("unencrypted" in text for text in settings.warnings) is warned
