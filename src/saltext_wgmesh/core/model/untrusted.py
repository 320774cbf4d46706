"""Values that a node sent: bounded before other code reads them, and text in a form that is safe to show.

A node writes its mine and its returns as it likes. Deeply nested lists would end a run by a RecursionError, wherever
they are copied, printed or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The largest value that is read."""

    depth: int
    """Levels of lists and mappings."""
    values: int
    """Scalars, lists, mappings and keys together."""
    characters: int
    """All text together; a byte of binary data or of a number counts as one."""


MINE_BOUNDS = Bounds(depth=8, values=20_000, characters=1_000_000)
"""The facts of one node. Those with the most addresses and networks allowed have half as many values."""
RETURN_BOUNDS = Bounds(depth=16, values=500_000, characters=10_000_000)
"""The return of one node. The link report of a relay with some thousand leaves is the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Stands for a value that is not read."""

    reason: str
    """A statement without a subject, such as ``is nested more than 8 levels deep``."""


def bounded(value: object, bounds: Bounds) -> object:
    """Return *value*, or a ``Refused`` if it exceeds *bounds*. It takes time in proportion to the bounds at most."""
    values = characters = 0
    level = [value]
    for _ in range(bounds.depth + 1):
        below: list[object] = []
        for each in level:
            characters += _characters(each)
            parts = _parts(each)
            values += len(parts)
            if values > bounds.values or characters > bounds.characters:
                return Refused(reason=f"has more than {bounds.values} values or {bounds.characters} characters")
            below += parts
        if not below:
            return value
        level = below
    return Refused(reason=f"is nested more than {bounds.depth} levels deep")


def _characters(value: object) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    return value.bit_length() // 8 if isinstance(value, int) else 0


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else []


def printable(text: str, limit: int) -> str:
    """Return the first *limit* characters of *text* on one line, with escapes for all that would control a terminal."""
    return "".join(map(_shown, text[:limit]))[:limit]


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character in "\n\r\t" else character.encode("unicode_escape").decode()
