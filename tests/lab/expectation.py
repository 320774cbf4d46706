"""Compare the paths of a mesh with the plan: each pair must reach each other, by the planned path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .overlay import Trip

Paths = Mapping[str, Mapping[str, Iterable[str]]]
"""``{source: {destination: (source, relay…, destination)}}``, as ``salt-run wgmesh.paths`` gives it."""
PathsByFamily = Mapping[int, Paths]
"""4 or 6 → the paths of its packets. The same pair may use another relay in each family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanHost:
    """A machine behind a node's subnet that runs no WireGuard itself."""

    name: str
    gateway: str
    address: str


def targets(
    overlay: Mapping[str, tuple[str, ...]], lan: LanHost | None = None
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the pairs to measure: all nodes in each family, and every node from and to the LAN host."""
    wanted = {source: {t: a for t, a in overlay.items() if t != source} for source in overlay}
    if lan:
        for source in overlay:
            wanted[source][lan.name] = (lan.address,)
        wanted[lan.name] = {t: tuple(a for a in addresses if ":" not in a) for t, addresses in overlay.items()}
    return wanted


def planned_path(paths: Paths, source: str, target: str, lan: LanHost | None = None) -> tuple[str, ...] | None:
    """Return the planned machines from *source* to *target*, ends included; None if the plan has no such path.

    A LAN host is one hop further than its gateway.
    """
    if lan and target == lan.name:
        inner = (source,) if source == lan.gateway else planned_path(paths, source, lan.gateway)
        return inner and (*inner, target)
    if lan and source == lan.name:
        inner = (target,) if target == lan.gateway else planned_path(paths, lan.gateway, target)
        return inner and (source, *inner)
    path = paths.get(source, {}).get(target)
    return None if path is None else tuple(path)


def faults(trips: Iterable[Trip], paths: PathsByFamily, lan: LanHost | None = None) -> list[str]:
    """Return a line for each trip that did not arrive or took another path than planned, in the trips' order."""
    found = []
    for trip in trips:
        plan = planned_path(paths[6 if ":" in trip.address else 4], trip.source, trip.target, lan)
        name = f"{trip.source} to {trip.target} ({trip.address})"
        if not trip.arrived:
            found.append(f"{name}: no answer; shown on the way: {arrows(trip.path)}")
        elif plan is None:
            found.append(f"{name}: arrives, but the plan has no path for it")
        elif plan != trip.path:
            found.append(f"{name}: went {arrows(trip.path)}, planned was {arrows(plan)}")
    return found


def arrows(path: Iterable[str]) -> str:
    """Return a path as one line."""
    return " → ".join(path)
