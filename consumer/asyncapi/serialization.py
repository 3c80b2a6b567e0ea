"""The document as text."""

import json
from typing import Any

import yaml


def as_json(document: dict[str, Any]) -> str:
    """JSON, in the order in which it was put together."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_yaml(document: dict[str, Any]) -> str:
    """The same in YAML 1.1, which reads as 1.2."""
    return yaml.dump(document, Dumper=_Whole, sort_keys=False, allow_unicode=True, width=120)


class _Whole(yaml.SafeDumper):
    """No anchors: a part that occurs twice is written twice, as not every reader knows them."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
