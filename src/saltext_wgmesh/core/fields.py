"""Raw values from YAML or msgpack → typed values; whatever doesn't fit becomes a sentence, never a traceback.

A *converter* is a function that takes one raw value and returns a typed one, or raises ``Wrong``. A ``Section``
applies converters to the keys of a mapping and notes each ``Wrong`` under the key's path.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from saltext_wgmesh.core.errors import Problem

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)
Converter = Callable[[object], T]

LONGEST_SHOWN = 60
"""Characters of a value that a message repeats at most."""
_LONGEST_NAME = 255
_NAME = re.compile(r"[A-Za-z0-9._@:+=~-]+")
_PATTERN = re.compile(r"[A-Za-z0-9._@:+=~*?\[\]!-]+")


class Wrong(ValueError):
    """A value is not what it should be: what is wrong, and what to do about it."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what)
        self.what = what
        self.do = do


def shown(value: object) -> str:
    """*value* for a message: at most LONGEST_SHOWN characters, none of which a terminal would obey."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value)) if value.bit_length() <= 128 else "a very long number"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        text = repr(str(value[:LONGEST_SHOWN]))
        return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
    return kind(value)


def kind(value: object) -> str:
    """The type of *value* in the words of someone who writes YAML."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "nothing" if value is None else f"a value of type {type(value).__name__[:30]}"


def name_in_path(name: object) -> str:
    """*name* as a step of a path: as it is when that is harmless, else as a message shows it."""
    if isinstance(name, str) and len(name) <= LONGEST_SHOWN and _PATTERN.fullmatch(name):
        return name
    return shown(name)


def suggestion(word: str, known: Iterable[str], listed: str) -> str:
    """What to do about the unknown *word*: the known one that is close to it, else the list of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(word[:LONGEST_SHOWN], choices, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"{listed}: {', '.join(choices[:20])}" if choices else f"{listed}: none"


@dataclass(slots=True)
class Problems:
    """What was found wrong so far. Checks that build on a field ask first whether it was read at all."""

    found: list[Problem] = field(default_factory=list)
    _places: set[str] = field(default_factory=set)

    def add(self, where: str, what: str, do: str) -> None:
        """One more problem is noted at the path *where*."""
        self.found.append(Problem(where=where, what=what, do=do))
        self._places.add(where)

    def at(self, where: str) -> bool:
        """Whether something is wrong at exactly this path."""
        return where in self._places

    def below(self, where: str) -> bool:
        """Whether something is wrong at this path or below it."""
        return any(place == where or place.startswith(f"{where}:") for place in self._places)


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with a closed set of keys, the path it stands at, and where to say what is wrong in it.

    A key that is absent or null means the default. A value that can't be read means the default too, and a problem.
    """

    path: str
    values: Mapping[object, object]
    problems: Problems

    @classmethod
    def open(cls, path: str, raw: object, known: tuple[str, ...], problems: Problems) -> Section:
        """The section of *raw*; a problem for each key that is not *known*, and if it is no mapping at all."""
        if raw is None:
            raw = {}
        if not isinstance(raw, Mapping):
            problems.add(path, f"is {kind(raw)}, not a mapping", f"write keys below it: {', '.join(sorted(known))}")
            raw = {}
        for key in raw:
            if key not in known:
                do = suggestion(key if isinstance(key, str) else "", known, "known keys")
                problems.add(f"{path}:{name_in_path(key)}", "is an unknown key", do)
        return cls(path, raw, problems)

    def read(self, key: str, convert: Converter[T], default: T) -> T:
        """The value of *key*."""
        raw = self.values.get(key)
        return default if raw is None else next(self._converted(key, [raw], convert), default)

    def read_list(self, key: str, convert: Converter[T]) -> tuple[T, ...]:
        """The values of *key*, where one value may stand without a list; each once, in the order written."""
        raw = self.values.get(key)
        items = [] if raw is None else list(raw) if isinstance(raw, (list, tuple)) else [raw]
        return tuple(dict.fromkeys(self._converted(key, items, convert)))

    def _converted(self, key: str, items: Iterable[object], convert: Converter[T]) -> Iterator[T]:
        for item in items:
            try:
                yield convert(item)
            except Wrong as wrong:
                self.problems.add(f"{self.path}:{key}", wrong.what, wrong.do)


def entries(path: str, raw: object, convert_name: Converter[str], problems: Problems) -> list[tuple[str, object]]:
    """The (name, raw value) pairs of a mapping whose keys the operator chose, in the operator's order."""
    if raw is None:
        return []
    if not isinstance(raw, Mapping):
        problems.add(path, f"is {kind(raw)}, not a mapping", "write one entry a name")
        return []
    pairs = []
    for key, value in raw.items():
        try:
            pairs.append((convert_name(key), value))
        except Wrong as wrong:
            problems.add(f"{path}:{name_in_path(key)}", wrong.what, wrong.do)
    return pairs


# --- converters ----------------------------------------------------------------------------------------


def text(value: object) -> str:
    """*value*, which must be text: what YAML reads as a number, boolean or date needs quotes."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (Mapping, list, tuple)):
        raise Wrong(f"is {kind(value)}, not text", "write one value")
    if value is None:
        raise Wrong("is nothing, not text", "write a value, or take the entry away")
    seen = f" ({shown(value)})" if shown(value) != kind(value) else ""
    raise Wrong(f"was read as {kind(value)}{seen}, not as text", "put it in quotes")


def name(value: object) -> str:
    """A minion id or the name of a site: text of 1 to 255 harmless characters, without wildcards."""
    word = text(value)
    if len(word) > _LONGEST_NAME or not _NAME.fullmatch(word):
        raise Wrong(f"{shown(word)} is not a name", "use letters, digits and . _ @ : + = ~ - only")
    return word


def pattern(value: object) -> str:
    """A minion id or a glob over minion ids."""
    word = text(value)
    if len(word) > _LONGEST_NAME or not _PATTERN.fullmatch(word):
        raise Wrong(
            f"{shown(word)} is neither a minion id nor a glob",
            "use letters, digits and . _ @ : + = ~ - and the wildcards * ? [..] only",
        )
    return word


def flag(value: object) -> bool:
    """A boolean; text such as ``'yes'`` is none."""
    if isinstance(value, bool):
        return value
    raise Wrong(f"{shown(value)} is {kind(value)}, not a boolean", "write true or false, without quotes")


def integer(low: int, high: int) -> Converter[int]:
    """A converter to whole numbers from *low* to *high*, both included; booleans are none."""

    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"{shown(value)} is not a whole number", f"write a number from {low} to {high}, without quotes")
        if not low <= value <= high:
            raise Wrong(f"{shown(value)} is out of range", f"choose a number from {low} to {high}")
        return int(value)

    return convert


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration(shortest: int) -> Converter[int]:
    """A converter from text such as ``30d`` to seconds, of which there must be *shortest* at least."""

    def convert(value: object) -> int:
        word = shown(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
        number, unit = word[:-1], word[-1:]
        if unit not in _SECONDS or not (number.isascii() and number.isdigit()) or len(number) > 6:
            raise Wrong(f"{shown(word)} is not a time", f"write a number and one of {' '.join(_SECONDS)}, such as 30d")
        seconds = int(number) * _SECONDS[unit]
        if seconds < shortest:
            raise Wrong(f"{shown(word)} is too short", f"write {shortest}s or more")
        return seconds

    return convert


def choice(kinds: type[E]) -> Converter[E]:
    """A converter to the members of an enum, by their values."""
    words = {str(member.value): member for member in kinds}

    def convert(value: object) -> E:
        word = text(value)
        if word not in words:
            raise Wrong(f"{shown(word)} is no choice", suggestion(word, words, "choose one of"))
        return words[word]

    return convert
