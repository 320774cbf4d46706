"""The master's report of a mesh: whether it is settled, and the planned paths."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.operator import show
from saltext_wgmesh.master.operator import status as state_of

from .expectation import PathsByFamily as PathsByFamily
from .fleet import Fleet
from .machine import CommandFailed
from .wait import wait_until


def paths(fleet: Fleet, mesh: str) -> PathsByFamily:
    """Return the published plan's paths between all nodes. They are read in this process, as in ``status``."""
    return {family: show.paths(fleet.master_opts(), mesh, family) for family in (4, 6)}


def status(fleet: Fleet, mesh: str) -> dict[str, Any]:
    """Return the mesh's part of the runner's status; empty before the first plan.

    It is read from the master's files in this process. A process that starts Salt takes longer than most waits."""
    try:
        found = state_of.status(fleet.master_opts(), live=False)
        return found[mesh].as_dict() if mesh in found else {}
    except LedgerError:
        return {}


def await_settled(fleet: Fleet, mesh: str, members: set[str], deadline: float = 60) -> dict[str, Any]:
    """Wait until exactly *members* are in the published plan and run it, and none follows. Return the status.

    A node that answers after a push has stopped waiting is noticed by the next run. Some labs have no schedule, others
    wait for less than a minute: one run is asked for if all members are planned by then. It hides no lost join.
    """
    seen: dict[str, Any] = {}

    def settled() -> bool:
        seen.clear()
        seen.update(status(fleet, mesh))
        return set(seen.get("nodes", ())) == members and not seen["not_acknowledged"] and "transition" not in seen

    try:
        with suppress(AssertionError):
            wait_until(settled, deadline / 2, f"{mesh} to settle", every=0.5)
            return seen
        if set(seen.get("nodes", ())) == members:
            with suppress(CommandFailed):
                fleet.salt_run("wgmesh.converge")
        wait_until(settled, deadline, f"{mesh} to settle", every=0.5)
    except AssertionError as error:
        missing = sorted(members - set(seen.get("nodes", ())))
        pending = {key: seen.get(key) for key in ("not_acknowledged", "transition", "unplaced") if seen.get(key)}
        raise AssertionError(f"{error}; not planned: {missing}; {pending}") from None
    return seen


def not_up(fleet: Fleet, mesh: str, members: set[str]) -> list[str]:
    """Return the links of *members* that are not up, by the nodes' own reports. Empty if all are."""
    lines = []
    for node in sorted(members):
        links = fleet.links(node, mesh)
        if not links:
            lines.append(f"{node} reports no links")
        lines += [f"{node}: {n} is {link['state']}" for n, link in links.items() if link["state"] != "up"]
    return lines


def await_links(fleet: Fleet, mesh: str, members: set[str], deadline: float = 30) -> None:
    """Wait until every link between *members* is up, by the reports of both ends."""
    left: list[str] = []

    def all_up() -> bool:
        left[:] = not_up(fleet, mesh, members)
        return not left

    try:
        wait_until(all_up, deadline, "all links to be up", every=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}: {'; '.join(left)}") from None
