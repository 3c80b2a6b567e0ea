"""No file needs a file that needs it: what imports what can be read from top to bottom, everywhere."""

from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

PACKAGES = ("consumer", "schemas", "docs", "infra", "scripts")


def circle_in(imports: Mapping[str, Set[str]]) -> list[str]:
    """Modules that import one another in a ring, the first of them repeated at the end; none, if there is no ring."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def test_no_files_import_one_another() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    assert circle_in({one: graph.find_modules_directly_imported_by(one) for one in graph.modules}) == []


@pytest.mark.parametrize(
    ("imports", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, set()),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, {"b", "c"}),
    ],
)
def test_a_circle_is_found(imports: dict[str, set[str]], found: set[str]) -> None:
    assert set(circle_in(imports)) == found
