"""Values of AMQP 0-9-1 with any bytes in them, encoded, for hypothesis to make messages of."""

import struct

from hypothesis import strategies as st

from tests.raw_amqp import long, short

_SIZES = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8, b"D": 5, b"T": 8, b"V": 0}


def values() -> st.SearchStrategy[bytes]:
    """A value of any type behind its type, with any bytes in it that RabbitMQ takes: no float that is no number."""
    flat = st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda value: b"f" + struct.pack(">f", value)),
        st.floats(allow_nan=False, allow_infinity=False).map(lambda value: b"d" + struct.pack(">d", value)),
        *(st.binary(min_size=size, max_size=size).map(kind.__add__) for kind, size in _SIZES.items()),
        st.tuples(st.sampled_from([b"S", b"x"]), st.binary(max_size=40)).map(lambda one: one[0] + long(one[1])),
    )
    names = st.binary(max_size=20).map(short)
    return st.recursive(
        flat,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda some: b"A" + long(b"".join(some))),
            st.lists(st.tuples(names, inner).map(b"".join), max_size=4).map(lambda some: b"F" + long(b"".join(some))),
        ),
        max_leaves=12,
    )


def tables() -> st.SearchStrategy[bytes]:
    names = st.one_of(st.text(max_size=20).map(str.encode), st.binary(max_size=130)).map(short)
    fields = st.tuples(names, values()).map(b"".join)
    return st.lists(fields, max_size=5).map(lambda some: long(b"".join(some)))


def of_type(kind: str) -> st.SearchStrategy[bytes]:
    """A property, or an argument of a method, with any bytes in it."""
    match kind:
        case "shortstr":
            return st.one_of(st.text(max_size=40).map(str.encode), st.binary(max_size=255)).map(short)
        case "longstr":
            return st.binary(max_size=50).map(long)
        case "table":
            return tables()
        case _:
            width = {"octet": 1, "short": 2, "long": 4, "longlong": 8, "timestamp": 8}[kind]
            return st.binary(min_size=width, max_size=width)
