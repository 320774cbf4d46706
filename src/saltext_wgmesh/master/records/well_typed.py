"""Whether a record has the types that its class says: a damaged file may be parsed, and end a run much later."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Set
from typing import Any, TypeVar

T = TypeVar("T")
_Check = Callable[[Any], bool]


def well_typed(record: T) -> T:
    """Return *record*. TypeError if it is a dataclass, and one of its fields, at any depth, is of another type."""
    if dataclasses.is_dataclass(record):
        for name, check in _checks_of(record.__class__):
            if not check(getattr(record, name)):
                raise TypeError(f"{name} has another type")
    return record


@functools.cache
def _checks_of(kind: Any) -> tuple[tuple[str, _Check], ...]:
    """Field of the dataclass *kind* → its check."""
    hints = typing.get_type_hints(kind)
    return tuple((field.name, _check(hints[field.name])) for field in dataclasses.fields(kind))


def _check(hint: Any) -> _Check:
    """Return the function that tells whether a value is of the type *hint*."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda _: True
    if origin in (types.UnionType, typing.Union):
        return _any_of([_check(each) for each in inner])
    if origin is None:
        return _check_class(hint)
    if issubclass(origin, Mapping):
        return _check_mapping(_check(inner[0]), _check(inner[1]))
    if issubclass(origin, tuple) and inner[-1] is not Ellipsis:
        return _check_row([_check(each) for each in inner])
    return _check_collection(origin, _check(inner[0]))


def _check_class(kind: Any) -> _Check:
    if hasattr(kind, "__dataclass_fields__"):
        checks = _checks_of(kind)
        return lambda value: isinstance(value, kind) and all(check(getattr(value, name)) for name, check in checks)
    if kind is float:
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    return lambda value: isinstance(value, kind)


def _any_of(checks: list[_Check]) -> _Check:
    return lambda value: any(check(value) for check in checks)


def _check_mapping(of_key: _Check, of_value: _Check) -> _Check:
    return lambda value: isinstance(value, Mapping) and all(of_key(k) and of_value(v) for k, v in value.items())


def _check_row(checks: list[_Check]) -> _Check:
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(checks)
        and all(check(each) for check, each in zip(checks, value, strict=True))
    )


def _check_collection(kind: Any, of_each: _Check) -> _Check:
    expected = Set if issubclass(kind, Set) else kind
    return lambda value: isinstance(value, expected) and all(of_each(each) for each in value)
