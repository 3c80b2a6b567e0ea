"""Writes the document as text."""

import json
from typing import Any

import yaml


def as_json(document: dict[str, Any]) -> str:
    """Write a document as JSON, with its keys in their order."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_yaml(document: dict[str, Any]) -> str:
    """Write a document as YAML 1.1 that YAML 1.2 reads the same way."""
    return yaml.dump(document, Dumper=_Whole, sort_keys=False, allow_unicode=True, width=120)


class _Whole(yaml.SafeDumper):
    """Writes repeated parts in full, because not every reader understands YAML anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
