"""What is said beside the faults of a configuration: the meaning of a setting, and warnings."""

from pathlib import Path

import pytest

from consumer.processes.service import MCPService
from consumer.settings import ConfigurationError, load_settings
from consumer.settings.fields import first_sentence, meaning_of


@pytest.mark.parametrize("name", ["warm", "url", "env", "timeout", "sandbox", "todo"])
def test_a_service_may_be_named_as_a_setting_is(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mcp-sessions.toml"
    file.write_text(f'[services.{name}]\ncommand = ["x"]\ntimeout = "soon"\nwarm = "many"\ncomand = "y"\n')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {})
    meaning = {one.key.removeprefix(f"services.{name}."): one.meaning for one in caught.value.faults}
    assert meaning == {
        "timeout": first_sentence(meaning_of(MCPService, "timeout")),
        "warm": first_sentence(meaning_of(MCPService, "warm")),
        "comand": "",
    }


def test_a_misspelt_field_of_a_route_is_told_beside_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "mcp-sessions.toml"
    file.write_text(
        '[services.todo]\ncommand = ["x"]\ntimeout = "soon"\n'
        '[[routes]]\nmatch = { direcion = "inbound" }\nservices = ["todo"]\n'
        "[[routes]]\nmatch = { to = 1 }\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {})
    (warning,) = caught.value.warnings
    assert warning.startswith("routes[0].match.direcion: a call event has no such field; did you mean direction?")
