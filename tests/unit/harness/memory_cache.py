"""Salt's cache in memory, which can lose its power."""

from __future__ import annotations

import copy
from typing import Any


class Cut(Exception):
    """The power went."""


class MemoryCache:
    """Salt's cache as two levels of a dict. Like a real one it hands out copies."""

    def __init__(self) -> None:
        self.banks: dict[str, dict[str, Any]] = {}
        self.cut: int | None = None
        """The number of writes until one fails; None: all succeed."""
        self.cut_at: tuple[str, str] | None = None
        """The bank and key of which every write fails."""

    def store(self, bank: str, key: str, data: Any) -> None:
        """Write, unless the power goes."""
        if (bank, key) == self.cut_at:
            raise Cut
        if self.cut is not None:
            if self.cut == 0:
                raise Cut
            self.cut -= 1
        self.banks.setdefault(bank, {})[key] = copy.deepcopy(data)

    def fetch(self, bank: str, key: str) -> Any:
        """What was stored; an empty dict if nothing was, as with Salt's."""
        return copy.deepcopy(self.banks.get(bank, {}).get(key, {}))

    def contains(self, bank: str, key: str) -> bool:
        """Whether anything is stored there."""
        return key in self.banks.get(bank, {})

    def list(self, bank: str) -> list[str]:
        """The keys of a bank."""
        return list(self.banks.get(bank, {}))

    def flush(self, bank: str, key: str) -> None:
        """Delete a key."""
        self.banks.get(bank, {}).pop(key, None)
