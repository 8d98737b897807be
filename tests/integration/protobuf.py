"""What kubectl sends when it creates a ConfigMap or a Secret itself: protobuf, of which this reads the name and the data."""

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"  # opens a request's body; then comes a message with type and object
VARINT, BYTES = 0, 2


def decoded(body: bytes) -> dict[str, Any]:
    """A ConfigMap or Secret as the object that JSON would hold."""
    if not body.startswith(MAGIC):
        raise ValueError("no Kubernetes object")
    (kinds,), (content,) = _fields(body[len(MAGIC) :], 1), _fields(body[len(MAGIC) :], 2)
    (version,), (kind,) = _fields(kinds, 1), _fields(kinds, 2)
    (meta,) = _fields(content, 1)
    (name,) = _fields(meta, 1)
    data = {_fields(each, 1)[0].decode(): _fields(each, 2)[0] for each in _fields(content, 2)}
    texts = {key: base64.b64encode(value).decode() if kind == b"Secret" else value.decode() for key, value in data.items()}
    return {"apiVersion": version.decode(), "kind": kind.decode(), "metadata": {"name": name.decode()}, "data": texts}


def _fields(message: bytes, number: int) -> list[bytes]:
    """The values of all fields of a number."""
    return [value for each, value in _all(message) if each == number]


def _all(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and values of a message's fields; numbers among the values are not kept."""
    position = 0
    while position < len(message):
        key, position = _number(message, position)
        if key & 7 == VARINT:
            _, position = _number(message, position)
        elif key & 7 == BYTES:
            size, position = _number(message, position)
            yield key >> 3, message[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {key & 7}")


def _number(message: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and what comes after it."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
