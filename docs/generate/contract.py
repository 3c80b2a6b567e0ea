"""The contract for programs: the AsyncAPI document and the JSON Schemas, as files that others can fetch."""

from collections.abc import Callable

from consumer.asyncapi import as_json, document, schema_files
from consumer.broker.topology import Names, cluster_topology
from consumer.gateway import openapi

DOCUMENT = "docs/asyncapi.json"
HTTP = "docs/openapi.json"
SCHEMAS = "docs/schemas"


def files() -> dict[str, str]:
    """What the files have in them, by name; with the names of the default prefix."""
    names = Names()
    schemas = {f"{SCHEMAS}/{name}": as_json(schema) for name, schema in schema_files().items()}
    return {DOCUMENT: as_json(document(names, cluster_topology(names))), HTTP: as_json(openapi.document()), **schemas}


def linked() -> str:
    """Every schema, as a link from a page in ``docs``."""
    return ", ".join(f"[`{name.removesuffix('.json')}`](schemas/{name})" for name in sorted(schema_files()))


PARTS: dict[str, Callable[[], str]] = {"schemas": linked}
