"""Values by which a hostile node tries to end the runs of the master."""

from __future__ import annotations

from typing import Any


def nested(levels: int) -> Any:
    """So many lists, each in the one before. Salt stores 960 of them."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found
