"""The values that ``salt-run`` prints."""

from __future__ import annotations

from typing import Any

_EMPTY: tuple[Any, ...] = (None, "", [], {})


def without_empty(value: Any) -> Any:
    """*value* without the keys and items, at any depth, that have no content; numbers and booleans always have some.

    Salt's outputs print such keys as bare lines, which an operator must read to learn nothing.
    """
    if isinstance(value, dict):
        return {key: item for key, each in value.items() if (item := without_empty(each)) not in _EMPTY}
    if isinstance(value, (list, tuple)):
        return [item for each in value if (item := without_empty(each)) not in _EMPTY]
    return value
