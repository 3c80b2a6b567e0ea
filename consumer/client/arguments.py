"""Checks the arguments of the client's methods before anything is sent. Pure.

The client parses each request with the worker's own model, so a request that a worker would refuse is never sent. First
it checks for values that would not reach the worker unchanged: those that cannot be encoded, and those that the encoder
would silently change.
"""

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from schemas.base import MAX_SECONDS, Json
from schemas.errors import InvalidArgument
from schemas.explaining import explain
from schemas.ids import NAME_PATTERN
from schemas.text import did_you_mean

MAX_NAME = 255
"""Bytes of a name or a routing key (AMQP 0-9-1, a short string)."""

Kind = TypeVar("Kind", bound=type)

_BINARY = (bytes, bytearray, memoryview)
_PLAIN = frozenset({str, int, float, bool, type(None)})
_IN_PYTHON = {"Field required": "is required, and must not be None"}
"""Texts for a Python caller, in place of those for the publisher of a message."""


def check_text(name: str, value: object, hint: str = "") -> None:
    """Check that an argument is a str.

    Raises:
        InvalidArgument: it is not; the message ends with ``hint``.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}: must be a str, is {kind_of(value)}{hint and f'; {hint}'}")


def check_name(name: str, value: object, *, least: int = 0) -> None:
    """Check that an argument is a str of ``least`` to 255 bytes, the longest name or routing key in AMQP.

    Raises:
        InvalidArgument: it is not.
    """
    check_text(name, value)
    size = len(str(value).encode("utf-8", "surrogatepass"))
    if not least <= size <= MAX_NAME:
        raise InvalidArgument(f"{name}: must be {least} to {MAX_NAME} bytes long, is {size}")


def check_prefix(value: object) -> None:
    """Check a prefix as workers do.

    Raises:
        InvalidArgument: workers would refuse it.
    """
    check_text("prefix", value)
    if not re.fullmatch(NAME_PATTERN, str(value)):
        raise InvalidArgument(
            f"prefix: must be 1 to 100 letters, digits, '.', '_' or '-', and begin with a letter or digit, is {value!r}"
        )


def check_texts(name: str, values: object) -> None:
    """Check that an argument is a list of str. A single str is refused.

    Raises:
        InvalidArgument: it is not.
    """
    if isinstance(values, str) or not isinstance(values, list | tuple):
        raise InvalidArgument(f"{name}: must be a list of str, is {kind_of(values)}")
    for at, one in enumerate(values):
        check_text(f"{name}[{at}]", one)


def check_choices(name: str, values: object, known: Sequence[str]) -> None:
    """Check that an argument is a list of one or more known words.

    Raises:
        InvalidArgument: it is not.
    """
    check_texts(name, values)
    assert isinstance(values, list | tuple)
    if not values:
        raise InvalidArgument(f"{name}: must have at least one of {', '.join(map(repr, known))}")
    for at, one in enumerate(values):
        if one not in known:
            raise InvalidArgument(
                f"{name}[{at}]: must be {' or '.join(map(repr, known))}, is {one!r}; {did_you_mean(one, known)}".rstrip(
                    "; "
                )
            )


def naming_arguments(kind: Kind) -> Kind:
    """Decorate a class so that its public methods refuse unknown arguments, and suggest the one that was meant.

    Python's own error would name the class that defines the method. Programs do not know that class.
    """
    for name, method in list(vars(kind).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(kind, name, _naming(name, method))
    return kind


def _naming(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except TypeError:  # of a coroutine function nothing has run yet
            if (fault := _misfit(signature, args, kwargs)) is not None:
                raise InvalidArgument(f"{name}: {fault}") from None
            raise

    if not inspect.iscoroutinefunction(method):
        return functools.wraps(method)(called)

    @functools.wraps(method)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await called(*args, **kwargs)

    return awaited


def _misfit(signature: inspect.Signature, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str | None:
    """Return the reason why a method does not take these arguments; None if it does."""
    known = [one for one in signature.parameters.values() if one.name != "self"]
    names = [one.name for one in known]
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known):
        unknown = []
    else:
        unknown = [f"{given!r}; {did_you_mean(given, names)}".rstrip("; ") for given in kwargs if given not in names]
    if unknown:
        return f"has no argument {', '.join(unknown)}"
    positional = [one.name for one in known if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if len(args) - 1 > len(positional):
        return f"takes {len(positional)} arguments without a name ({', '.join(positional)}), not {len(args) - 1}"
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def check_seconds(name: str, value: object) -> None:
    """Check that an argument is a duration (s): more than 0, and at most a week.

    Raises:
        InvalidArgument: it is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidArgument(f"{name}: must be a number of seconds, is {kind_of(value)}")
    if not 0 < value <= MAX_SECONDS:
        raise InvalidArgument(f"{name}: must be more than 0 and at most {MAX_SECONDS} seconds, is {value}")


def check_count(name: str, value: object, most: int) -> None:
    """Check that an argument is a whole number from 1 to ``most``.

    Raises:
        InvalidArgument: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name}: must be a whole number, is {kind_of(value)}")
    if not 1 <= value <= most:
        raise InvalidArgument(f"{name}: must be 1 to {most}, is {value}")


def check_function(name: str, value: object) -> None:
    """Check that an argument is a function or None.

    Raises:
        InvalidArgument: it is neither.
    """
    if not callable(value):
        raise InvalidArgument(f"{name}: must be a function or None, is {kind_of(value)}")


def encoded(values: Json, model: type[BaseModel] | None = None, /) -> bytes:
    """Encode the values that are not None as JSON, the body of a message of ``model`` if there is one.

    Raises:
        InvalidArgument: JSON cannot express one of them, or the model does not allow it; the message names it.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        body = to_json(given, inf_nan_mode="constants")
        # Bytes become text without a word, and constants are no JSON; text may have their names in it, too.
        suspect = b"NaN" in body or b"Infinity" in body or _is_changed(given.values())
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(_fault(given) or f"the request cannot be written as JSON: {error}") from error
    if suspect and (fault := _fault(given)):
        raise InvalidArgument(fault)
    if model is not None:
        try:
            model.model_validate_json(body)  # as a worker does: Python's own types may be more than JSON has
        except ValidationError as error:
            raise InvalidArgument(_in_words(error, model)) from None
    return body


def _in_words(error: ValidationError, model: type[BaseModel]) -> str:
    faults = explain(error, model)[1]
    return "; ".join(f"{fault['field']}: {_IN_PYTHON.get(fault['problem'], fault['problem'])}" for fault in faults)


def _is_changed(values: Iterable[object]) -> bool:
    """Return whether the values contain binary data or a key that is no text, at any depth: both would become text.

    It is fast, because every request calls it.
    """
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is dict:
            if not all(type(name) is str for name in value) or _is_changed(value.values()):  # type: ignore[attr-defined]
                return True
        elif kind is list or kind is tuple:
            if _is_changed(value):  # type: ignore[arg-type]  # it is one
                return True
        elif isinstance(value, _BINARY):
            return True
    return False


def _fault(values: Json) -> str | None:
    try:
        return next(_faults(values, ""), None)
    except RecursionError:
        return "the request contains itself, or is nested too deeply"


def _faults(value: object, path: str) -> Iterator[str]:
    """Yield the parts of a value that JSON cannot express, each with its path."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                yield (
                    f"{path}: is not valid Unicode: it has half a surrogate pair at position {error.start}; "
                    "remove it, for example with .encode(errors='replace').decode()"
                )
        case float() if not math.isfinite(value):
            yield f"{path}: must be a finite number, is {value}; JSON has none for it: leave it out or send text"
        case Mapping():
            for name, one in value.items():
                if isinstance(name, str):
                    yield from _faults(name, f"a key of {path}" if path else "a key")
                else:
                    yield f"a key of {path}: must be a str, is {kind_of(name)} ({name!r}); JSON has no other keys"
                yield from _faults(one, f"{path}.{name}" if path else str(name))
        case list() | tuple():
            for at, one in enumerate(value):
                yield from _faults(one, f"{path}[{at}]")
        case bytes() | bytearray() | memoryview():
            yield f"{path}: must be a JSON value, is {kind_of(value)}; decode it, or send it as base64"
        case _:
            try:
                to_json(value)
            except (ValueError, TypeError):
                yield f"{path}: must be a JSON value, is {kind_of(value)}"


def kind_of(value: Any) -> str:
    """Return the kind of a value, for a sentence that says what it should be."""
    return "None" if value is None else f"of type {type(value).__name__}"
