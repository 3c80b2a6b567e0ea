"""A secret that is given is one: an empty key would let everybody sign."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from consumer.settings import ConfigurationError, load_settings
from consumer.settings.asterisk_settings import AsteriskSettings
from consumer.settings.gateway_settings import GatewaySettings

EMPTY = "is an empty secret, which anybody can use: write the secret, or leave the setting out"

BLANK: dict[str, dict[str, Any]] = {
    "gateway.auth_password": {"auth_user": "agent", "auth_password": " "},
    "gateway.auth_token": {"auth_token": "\t"},
    "gateway.token_keys[0]": {"token_keys": [" " * 32]},
    "gateway.signing_keys[0]": {"signing_keys": ["${SIGNING_KEY|}"]},
    "gateway.signing_keys[1]": {"signing_keys": ["PSKtest1234567890abcdef", ""]},
    "gateway.webhooks.twilio.keys[0]": {"webhooks": {"twilio": {"keys": ["  "]}}},
}


def faults_of(folder: Path, table: dict[str, Any], **env: str) -> dict[str, str]:
    """What is wrong with a configuration, by key."""
    path = folder / "ours.json"
    path.write_text(json.dumps(table))
    try:
        load_settings(path, env=env)
    except ConfigurationError as error:
        return {fault.key: fault.problem for fault in error.faults}
    return {}


@pytest.mark.parametrize("key", BLANK)
def test_a_blank_secret_is_a_fault_that_names_its_key(tmp_path: Path, key: str) -> None:
    assert faults_of(tmp_path, {"gateway": BLANK[key]}) == {key: EMPTY}


def test_the_bridges_password_is_no_blank(tmp_path: Path) -> None:
    assert faults_of(tmp_path, {"asterisk": {"password": "  "}}) == {"asterisk.password": EMPTY}


def test_a_text_of_keys_without_any_is_no_list_of_none(tmp_path: Path) -> None:
    for text in ("", " ", "${SIGNING_KEY|}", " , "):
        assert faults_of(tmp_path, {"gateway": {"signing_keys": text}}) == {"gateway.signing_keys[0]": EMPTY}, text
    assert not faults_of(tmp_path, {"gateway": {"signing_keys": "${OLD_KEY|},PSKtest1234567890abcdef"}})
    assert not faults_of(tmp_path, {"gateway": {"signing_keys": []}})


def test_a_blank_variable_is_a_fault_by_its_name_and_an_empty_one_is_not_set(tmp_path: Path) -> None:
    name = "MCP_SESSIONS_GATEWAY_SIGNING_KEYS"
    assert faults_of(tmp_path, {}, **{name: " "}) == {f"{name} ([0])": EMPTY}
    assert not faults_of(tmp_path, {}, **{name: ""})


def test_a_token_is_no_hash_of_nothing(tmp_path: Path) -> None:
    token = {"name": "a", "sha256": hashlib.sha256(b"").hexdigest().upper(), "scopes": ["events"]}
    [(key, problem)] = faults_of(tmp_path, {"gateway": {"tokens": [token]}}).items()
    assert key == "gateway.tokens[0].sha256"
    assert problem == "is the SHA-256 of an empty text: TOKEN was not set when the digest was computed"


def secrets_in(model: type[BaseModel], path: str) -> Iterator[str]:
    """The settings of a model and its tables that are secrets."""

    def types_in(annotation: Any) -> Iterator[Any]:
        yield annotation
        for argument in get_args(annotation):
            yield from types_in(argument)

    for name, field in model.model_fields.items():
        for one in types_in(field.annotation):
            if isinstance(one, type) and issubclass(one, SecretStr):
                yield f"{path}.{name}"
            elif isinstance(one, type) and issubclass(one, BaseModel):
                yield from secrets_in(one, f"{path}.{name}")


def test_every_secret_of_the_settings_is_tried_here() -> None:
    found = {*secrets_in(GatewaySettings, "gateway"), *secrets_in(AsteriskSettings, "asterisk")}
    tried = {key.partition("[")[0].replace(".twilio", "") for key in BLANK}
    assert found == tried | {"asterisk.password"}
