"""JSON values -> frozen dataclasses, every field checked against its type.

What a type annotation says is what a field may hold, so a value of the wrong kind is found where it is read, by
its name, and not later in the middle of a metric.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_LONGEST = 60  # characters of a value that is quoted


class FieldError(ValueError):
    """A field that does not hold what its type says: names the field, what it holds and what it should."""


def decode(kind: type[T], body: Mapping[str, Any]) -> T:
    """The dataclass of these fields. Raises FieldError for one that is missing, unknown or of another type.

    Understands text, numbers, true and false, `Literal`, `X | None`, tuples, bare or named, dictionaries with text
    as keys, and dataclasses of these. A field with a default may be absent. A whole number may stand for a float.
    """
    decoded: T = _value(kind, body, "")
    return decoded


@lru_cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any, place: str) -> Any:
    """value as the hint wants it. place: the field's name, with those that it lies in."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, tuple):  # a named one
        return hint(*_tuple(tuple(_types(hint).values()), value, place))
    if dataclasses.is_dataclass(hint):
        return _fields(hint, value, place)
    if origin in (Union, UnionType):
        (inner,) = (arg for arg in args if arg is not NoneType)
        return None if value is None else _value(inner, value, place)
    if origin is Literal:
        if value not in args:
            raise _wrong(place, value, "one of " + ", ".join(map(str, args)))
        return value
    if origin is tuple:
        return _tuple(args, value, place)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(place, value, "an object")
        return {key: _value(args[1], item, f"{place}.{key}") for key, item in value.items()}
    fitting = (int, float) if hint is float else hint
    if not isinstance(value, fitting) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(place, value, _WORDS[hint])
    return hint(value)


def _fields(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(place, value, "an object")
    of = f" of {place}" if place else ""
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in known:
            raise FieldError(f"a field is missing or unknown ({name!r}{of} is unknown)")
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise FieldError(f"a field is missing or unknown ({name!r}{of} is missing)")
    prefix = f"{place}." if place else ""
    return kind(**{name: _value(_types(kind)[name], item, f"{prefix}{name}") for name, item in value.items()})


def _tuple(args: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(place, value, "a list")
    if args[-1] is Ellipsis:
        return tuple(_value(args[0], item, f"{place}[{at}]") for at, item in enumerate(value))
    if len(value) != len(args):
        raise _wrong(place, value, f"a list of {len(args)}")
    return tuple(
        _value(arg, item, f"{place}[{at}]") for at, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _wrong(place: str, value: Any, wanted: str) -> FieldError:
    shown = json.dumps(value, ensure_ascii=False)
    if len(shown) > _LONGEST:
        shown = shown[:_LONGEST] + "..."
    return FieldError(f"{place or 'the record'} is {shown} and must be {wanted}")
