"""Trips as a table for people: one line per pair, with the round trips of both directions."""

from __future__ import annotations

from collections.abc import Iterable

from .expectation import arrows
from .overlay import Trip


def table(trips: Iterable[Trip]) -> list[str]:
    """Return the lines: pair, median round trip there and back in each family, and the path or both paths."""
    by_pair: dict[tuple[str, str], list[Trip]] = {}
    for trip in trips:
        by_pair.setdefault((trip.source, trip.target), []).append(trip)
    wide = max((len(f"{a} ⇄ {b}") for a, b in by_pair), default=0)
    lines = [f"{'pair':<{wide}}  {'IPv4 ms':>13}  {'IPv6 ms':>13}  path", "-" * (wide + 60)]
    for (a, b), there in sorted(by_pair.items()):
        if a < b:
            back = by_pair.get((b, a), [])
            cells = "  ".join(f"{_times(there, back, version):>13}" for version in (4, 6))
            lines.append(f"{f'{a} ⇄ {b}':<{wide}}  {cells}  {_path(there, back)}")
    return lines


def _times(there: list[Trip], back: list[Trip], version: int) -> str:
    of_version = [[t for t in trips if (":" in t.address) == (version == 6)] for trips in (there, back)]
    if not any(of_version):
        return ""
    return " / ".join(_median(trips) for trips in of_version)


def _median(trips: list[Trip]) -> str:
    if not trips or not trips[0].arrived:
        return "lost"
    times = trips[0].round_trips
    return f"{times[len(times) // 2]:.1f}"


def _path(there: list[Trip], back: list[Trip]) -> str:
    ways = sorted({t.path for t in there}) or [("?",)]
    returns = sorted({t.path[::-1] for t in back})
    text = " or ".join(arrows(w) for w in ways)
    return text if returns == ways or not returns else f"{text}; back {' or '.join(arrows(w) for w in returns)}"
