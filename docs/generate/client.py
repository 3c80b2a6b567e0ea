"""The reference of the Python client, from its signatures and docstrings."""

import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from consumer import client
from consumer.client import SessionClient
from consumer.client.typed_requests import TypedRequests
from docs.generate.markdown import code, prose, table
from schemas import mcp
from schemas.errors import ClientError

_SECTIONS = ("Args", "Returns", "Raises")
_LIFE = ("connect", "disconnect", "connected")


def about() -> str:
    """How a client is made."""
    return f"{_signature('SessionClient', SessionClient)}\n\n{_told(inspect.getdoc(SessionClient) or '')}"


def methods() -> str:
    """Every public method."""
    return "\n\n".join(f"### {name}\n\n{_method(name, member)}" for name, member in public())


def public() -> Iterator[tuple[str, Any]]:
    """The public members in the order of the source, with connecting first and the raw request last."""
    found: dict[str, Any] = {}
    for kind in (TypedRequests, *SessionClient.__bases__, SessionClient):
        found |= {name: member for name, member in vars(kind).items() if not name.startswith("_") and name != "names"}
    request = found.pop("request")
    for name in _LIFE:
        yield name, found.pop(name)
    yield from found.items()
    yield "request", request


def _method(name: str, member: Any) -> str:
    text = _told(inspect.getdoc(member) or "")
    return text if isinstance(member, property) else f"{_signature(name, member)}\n\n{text}"


def _signature(name: str, thing: Callable[..., Any]) -> str:
    signature = inspect.signature(thing)
    parameters = [part for one in signature.parameters.values() if one.name != "self" for part in _expanded(one)]
    shown = [_parameter(one) for one in parameters]
    star = next((at for at, one in enumerate(parameters) if one.kind is inspect.Parameter.KEYWORD_ONLY), None)
    if star is not None:
        shown.insert(star, "*")
    given = "" if isinstance(thing, type) else f" -> {_kind(signature.return_annotation)}"
    line = f"{name}({', '.join(shown)}){given}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){given}"
    return f"```text\n{line}\n```"


def _expanded(one: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """A parameter, or those that ``**options: Unpack[...]`` stands for."""
    if one.kind is not inspect.Parameter.VAR_KEYWORD:
        yield one
        return
    (options,) = get_args(one.annotation)
    for name, kind in get_type_hints(options).items():
        default = False if kind is bool else None
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _parameter(one: inspect.Parameter) -> str:
    default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
    return f"{one.name}: {_kind(one.annotation)}{default}"


def _kind(annotation: Any) -> str:
    if get_origin(annotation) in {Union, types.UnionType}:  # each Python writes one differently
        return " | ".join(map(_kind, get_args(annotation)))
    shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    shown = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", shown)
    return shown.replace("dict[str, Any]", "Json").replace("NoneType", "None")


def _told(docstring: str) -> str:
    """A docstring in Google's form as Markdown: its text, and a table for each of its sections."""
    text, *sections = re.split(rf"^({'|'.join(_SECTIONS)}):\n", docstring, flags=re.MULTILINE)
    parts = [_marked(text)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        inner = textwrap.dedent(body).strip()
        parts.append(f"Returns: {_marked(inner)}" if title == "Returns" else _section(title, inner))
    return "\n\n".join(parts)


def _section(title: str, body: str) -> str:
    entries = re.findall(r"^(\S[^:]*): (.*(?:\n[ \t]+.*)*)", body, flags=re.MULTILINE)
    head = "parameter" if title == "Args" else "raises"
    rows = [(", ".join(code(one) for one in name.split(", ")), _marked(meaning)) for name, meaning in entries]
    return table((head, "meaning" if title == "Args" else "when"), rows)


def _marked(text: str) -> str:
    """A docstring's text as Markdown, on one line for each paragraph."""
    plain = re.sub(r"``(.+?)``", r"`\1`", text.strip())
    return "\n\n".join(" ".join(one.split()) for one in plain.split("\n\n"))


def results() -> str:
    """The models that the client takes and returns: those of what MCP servers say, then the others by name."""
    rows = []
    exported = {name: getattr(client, name) for name in client.__all__}
    for name, model in {**vars(mcp), **exported}.items():
        public = not name.startswith("_") and isinstance(model, type) and issubclass(model, BaseModel)
        if public and (name in exported or model.__module__ == mcp.__name__):
            rows.append((code(name), ", ".join(code(field) for field in model.model_fields), _marked(prose(model))))
    return table(("model", "fields", "what it is"), rows)


def errors() -> str:
    """The errors that the client raises by itself."""
    return table(("class", "code", "executed", "retryable", "when"), [_error(one) for one in _below(ClientError)])


def _error(kind: type[ClientError]) -> tuple[str, str, str, str, str]:
    executed = "no" if kind.executed is False else "unknown"
    retryable = "yes" if kind.retryable else "no"
    if "executed" in inspect.signature(kind).parameters:  # each error says whether its request was sent
        executed, retryable = "no, or unknown if it was sent", "yes if it was not sent"
    return code(kind.__name__), code(kind.code.value), executed, retryable, _marked(prose(kind))


def _below(root: type[ClientError]) -> Iterator[type[ClientError]]:
    for child in root.__subclasses__():
        yield child
        yield from _below(child)


PARTS: dict[str, Callable[[], str]] = {
    "client-class": about,
    "client-methods": methods,
    "client-results": results,
    "client-errors": errors,
}
