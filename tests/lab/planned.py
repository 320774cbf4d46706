"""What the master says of a mesh: whether it is settled, and the paths that it planned."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master import status as state_of

from .expectation import Paths as Paths
from .fleet import Fleet
from .wait import wait_until


def paths(fleet: Fleet, mesh: str) -> Paths:
    """The published plan's paths between all nodes."""
    found: Paths = fleet.salt_run("wgmesh.paths", mesh=mesh)
    return found


def status(fleet: Fleet, mesh: str) -> dict[str, Any]:
    """What the runner's status tells of the mesh; empty before the first plan. Read here and now from the master's
    files, since a process that starts Salt for it takes more time than what is waited for."""
    try:
        return dict(state_of.status(fleet.master_opts(), live=False).get(mesh, {}))
    except LedgerError:
        return {}


def await_settled(fleet: Fleet, mesh: str, members: set[str], deadline: float = 60) -> dict[str, Any]:
    """Exactly *members* are in the published plan, each runs its part of it, and none follows. Returns the status."""
    seen: dict[str, Any] = {}

    def settled() -> bool:
        seen.clear()
        seen.update(status(fleet, mesh))
        return set(seen.get("nodes", ())) == members and not seen["not_acknowledged"] and "rollout" not in seen

    try:
        wait_until(settled, deadline, f"{mesh} to settle", every=0.5)
    except AssertionError as error:
        missing = sorted(members - set(seen.get("nodes", ())))
        told = {key: seen.get(key) for key in ("not_acknowledged", "rollout", "left_out") if seen.get(key)}
        raise AssertionError(f"{error}; not planned: {missing}; {told}") from None
    return seen


def not_up(fleet: Fleet, mesh: str, members: set[str]) -> list[str]:
    """What keeps the links of *members* from being all up, by the nodes' own words; empty if nothing does."""
    lines = []
    for node in sorted(members):
        links = fleet.links(node, mesh)
        if not links:
            lines.append(f"{node} says nothing of its links")
        lines += [f"{node}: {n} is {link['state']}" for n, link in links.items() if link["state"] != "up"]
    return lines


def await_links(fleet: Fleet, mesh: str, members: set[str], deadline: float = 30) -> None:
    """Every link between *members* is up, by the words of both ends."""
    left: list[str] = []

    def all_up() -> bool:
        left[:] = not_up(fleet, mesh, members)
        return not left

    try:
        wait_until(all_up, deadline, "all links to be up", every=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}: {'; '.join(left)}") from None
