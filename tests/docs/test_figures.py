"""Figures that stand in several places are the same in all of them."""

import json
import re

import pytest

from tests.harness import ROOT


@pytest.mark.parametrize("page", ["README.md", "docs/operations/capacity.md"])
def test_a_page_says_of_app_json_what_is_in_it(page: str) -> None:
    sessions = json.loads((ROOT / "app.json").read_text())["env"]["MCP_SESSIONS_MAX_TOTAL_SESSIONS"]["value"]
    said = re.findall(r"`app\.json`\s+says\s+(\d+)", (ROOT / page).read_text())
    assert said
    assert set(said) == {sessions}
