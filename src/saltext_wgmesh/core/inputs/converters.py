"""Raw values from YAML or msgpack → typed values; a value that does not fit becomes a message, never a traceback.

A *converter* is a function that takes one raw value and returns a typed one, or raises ``InvalidValue``. A ``Section``
applies converters to the keys of a mapping, and adds each ``InvalidValue`` to the problems under the key's path.
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

MAX_QUOTED = 60
"""Characters of a value that a message repeats."""
_MAX_NAME = 255
"""Characters of a minion id or of a site's name."""
_NAME = re.compile(r"[A-Za-z0-9._@:+=~-]+")
_PATTERN = re.compile(r"[A-Za-z0-9._@:+=~*?\[\]!-]+")


class InvalidValue(ValueError):
    """A value that a converter can't accept: *message* says what is wrong, *remedy* what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def quoted(value: object) -> str:
    """Return *value* for a message: at most MAX_QUOTED characters, and no control characters.

    Pillar and mine hold text of any origin, which must neither fill nor control an operator's terminal.
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Python refuses to print integers of more than 4,300 digits.
        return str(int(value)) if value.bit_length() <= 128 else "a very long number"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        text = repr(str(value[:MAX_QUOTED]))
        return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."
    return kind(value)


def kind(value: object) -> str:
    """Return the type of *value* in the words of YAML."""
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
    """Return *name* as a step of a path: unchanged if its characters are harmless, else quoted."""
    if isinstance(name, str) and len(name) <= MAX_QUOTED and _PATTERN.fullmatch(name):
        return name
    return quoted(name)


def suggestion(word: str, known: Iterable[str], listed: str) -> str:
    """Return the remedy for the unknown *word*: the *known* word that is close to it, else the list of known words."""
    choices = sorted(known)
    close = difflib.get_close_matches(word[:MAX_QUOTED], choices, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"{listed}: {', '.join(choices[:20])}" if choices else f"{listed}: none"


@dataclass(slots=True)
class Problems:
    """The problems found so far. A check that depends on a field first asks whether the field has a problem."""

    found: list[Problem] = field(default_factory=list)
    _paths: set[str] = field(default_factory=set)

    def add(self, path: str, message: str, remedy: str) -> None:
        """Add a problem at *path*."""
        self.found.append(Problem(path=path, message=message, remedy=remedy))
        self._paths.add(path)

    def has_problem_at(self, path: str) -> bool:
        """Whether a problem was found at exactly this path."""
        return path in self._paths

    def has_problem_below(self, path: str) -> bool:
        """Whether a problem was found at this path or below it."""
        return any(known == path or known.startswith(f"{path}:") for known in self._paths)


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with a closed set of keys, its path, and the list to which its problems are added.

    A key that is absent or null has its default value. A value that can't be read counts as the default, and adds a
    problem: so the caller can go on and find all problems in one pass.
    """

    path: str
    values: Mapping[object, object]
    problems: Problems

    @classmethod
    def open(cls, path: str, raw: object, known: tuple[str, ...], problems: Problems) -> Section:
        """Return the section of *raw*; add a problem for each key that is not *known*, or if *raw* is no mapping."""
        if raw is None:
            raw = {}
        if not isinstance(raw, Mapping):
            problems.add(path, f"is {kind(raw)}, not a mapping", f"write keys below it: {', '.join(sorted(known))}")
            raw = {}
        for key in raw:
            if key not in known:
                remedy = suggestion(key if isinstance(key, str) else "", known, "known keys")
                problems.add(f"{path}:{name_in_path(key)}", "is an unknown key", remedy)
        return cls(path, raw, problems)

    def read(self, key: str, convert: Converter[T], default: T) -> T:
        """Return the value of *key*, or *default*."""
        raw = self.values.get(key)
        return default if raw is None else next(self._converted(key, [raw], convert), default)

    def read_list(self, key: str, convert: Converter[T]) -> tuple[T, ...]:
        """Return the values of *key*, each once, in the order written; a single value needs no list."""
        raw = self.values.get(key)
        items = [] if raw is None else list(raw) if isinstance(raw, (list, tuple)) else [raw]
        return tuple(dict.fromkeys(self._converted(key, items, convert)))

    def _converted(self, key: str, items: Iterable[object], convert: Converter[T]) -> Iterator[T]:
        for item in items:
            try:
                yield convert(item)
            except InvalidValue as error:
                self.problems.add(f"{self.path}:{key}", error.message, error.remedy)


def entries(path: str, raw: object, convert_name: Converter[str], problems: Problems) -> list[tuple[str, object]]:
    """Return the (name, raw value) pairs of a mapping whose keys the operator chose, in the operator's order."""
    if raw is None:
        return []
    if not isinstance(raw, Mapping):
        problems.add(path, f"is {kind(raw)}, not a mapping", "write one entry a name")
        return []
    pairs = []
    for key, value in raw.items():
        try:
            pairs.append((convert_name(key), value))
        except InvalidValue as error:
            problems.add(f"{path}:{name_in_path(key)}", error.message, error.remedy)
    return pairs


# --- converters ----------------------------------------------------------------------------------------


def text(value: object) -> str:
    """Return *value*, which must be text.

    YAML reads some text without quotes as a number, a boolean or a date; the message then asks for quotes.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (Mapping, list, tuple)):
        raise InvalidValue(f"is {kind(value)}, not text", "write one value")
    if value is None:
        raise InvalidValue("is nothing, not text", "write a value, or take the entry away")
    read_as = f" ({quoted(value)})" if quoted(value) != kind(value) else ""
    raise InvalidValue(f"was read as {kind(value)}{read_as}, not as text", "put it in quotes")


def name(value: object) -> str:
    """Return *value*, a minion id or the name of a site: 1 to 255 harmless characters, without wildcards."""
    word = text(value)
    if len(word) > _MAX_NAME or not _NAME.fullmatch(word):
        raise InvalidValue(f"{quoted(word)} is not a name", "use letters, digits and . _ @ : + = ~ - only")
    return word


def pattern(value: object) -> str:
    """Return *value*, a minion id or a glob over minion ids."""
    word = text(value)
    if len(word) > _MAX_NAME or not _PATTERN.fullmatch(word):
        raise InvalidValue(
            f"{quoted(word)} is neither a minion id nor a glob",
            "use letters, digits and . _ @ : + = ~ - and the wildcards * ? [..] only",
        )
    return word


def flag(value: object) -> bool:
    """Return *value*, a boolean; text such as ``'yes'`` is not accepted."""
    if isinstance(value, bool):
        return value
    raise InvalidValue(f"{quoted(value)} is {kind(value)}, not a boolean", "write true or false, without quotes")


def integer(low: int, high: int) -> Converter[int]:
    """Return a converter to whole numbers from *low* to *high*, both included; it does not accept booleans."""

    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue(
                f"{quoted(value)} is not a whole number", f"write a number from {low} to {high}, without quotes"
            )
        if not low <= value <= high:
            raise InvalidValue(f"{quoted(value)} is out of range", f"choose a number from {low} to {high}")
        return int(value)

    return convert


_SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration(minimum: int) -> Converter[int]:
    """Return a converter from text such as ``30d`` to seconds, of which *minimum* are the fewest allowed."""

    def convert(value: object) -> int:
        # A bare number is a likely mistake: the message shows it, and asks for a unit.
        word = quoted(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
        number, unit = word[:-1], word[-1:]
        if unit not in _SECONDS_PER_UNIT or not (number.isascii() and number.isdigit()) or len(number) > 6:
            raise InvalidValue(
                f"{quoted(word)} is not a time", f"write a number and one of {' '.join(_SECONDS_PER_UNIT)}, such as 30d"
            )
        seconds = int(number) * _SECONDS_PER_UNIT[unit]
        if seconds < minimum:
            raise InvalidValue(f"{quoted(word)} is too short", f"write {minimum}s or more")
        return seconds

    return convert


def choice(kinds: type[E]) -> Converter[E]:
    """Return a converter to the members of an enum, by their values."""
    words = {str(member.value): member for member in kinds}

    def convert(value: object) -> E:
        word = text(value)
        if word not in words:
            raise InvalidValue(f"{quoted(word)} is no choice", suggestion(word, words, "choose one of"))
        return words[word]

    return convert
