"""Break something under traffic, and report lost packets and the paths that the traffic took."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from saltext_wgmesh.core.constants import ROUTE_PROTOCOL

from .machine import CommandFailed
from .mesh import Mesh, losing
from .overlay import Loss, trips
from .planned import await_links, status
from .wait import wait_until

HEALED = 2.0
"""Seconds until traffic flows again: a loose bound, for busy machines. The benchmark measures the real time."""
PLANNED = 45.0
"""Seconds until the master has noticed a fault, planned and pushed: as loose."""
Ways = dict[tuple[str, str], tuple[str, ...]]
"""(Source, target) → the machines of the path, both ends included."""


@dataclass(slots=True, kw_only=True)
class Felt:
    """The gaps in the streams around a fault. Filled when it is over."""

    losses: list[Loss] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest time without an answer, in seconds."""
        return max((length for loss in self.losses for _, length in loss.gaps), default=0.0)

    @property
    def losing(self) -> list[Loss]:
        """The streams that lost packets."""
        return losing(self.losses)


@contextmanager
def streaming(mesh: Mesh, pairs: Mapping[str, str]) -> Iterator[Felt]:
    """Run streams at 100 Hz in both directions between each source and its target, and print their gaps at the end.

    The start and the end of the block wait for answers, so that the streams flow before and after it.
    """
    both = {**pairs, **{target: source for source, target in pairs.items()}}
    felt = Felt()
    with mesh.streams(both) as losses:
        steady(mesh, both)
        yield felt
        steady(mesh, both)
    felt.losses = losses
    for loss in losses:
        gap = max((length for _, length in loss.gaps), default=0.0)
        print(f"{loss.source} to {loss.address}: {loss.lost} of {loss.sent} lost, longest gap {gap * 1000:.0f} ms")


def steady(mesh: Mesh, pairs: Mapping[str, str], deadline: float = PLANNED) -> None:
    """Wait until each source reaches its target three times in a row."""
    for source, target in pairs.items():
        machine, address = mesh.lab.underlay[source], mesh.overlay()[target][0]

        def answered(machine: Any = machine, address: str = address) -> bool:
            with suppress(CommandFailed):
                machine.run("ping", "-q", "-i", "0.05", "-c", "3", "-w", "1", address)
                return True
            return False

        wait_until(answered, deadline, f"{source} to reach {target}")


def broken(
    mesh: Mesh, pairs: Mapping[str, str], fault: AbstractContextManager[object], until: Callable[[], object]
) -> tuple[Felt, Ways]:
    """Cause *fault* until its consequence *until* holds. Return the gaps in the streams, and their paths then.

    The path of a pair that did not reach each other ends with the last machine that answered.
    """
    with streaming(mesh, pairs) as felt, fault:
        wait_until(until, PLANNED, "the consequence of the fault", every=0.5)
        seen = ways(mesh, pairs)
        # The end of a fault sends no packet, like its start.
    return felt, seen


def mended(mesh: Mesh, pairs: Mapping[str, str], until: Callable[[], object] | None = None) -> Felt:
    """Return the gaps in the streams while the mesh recovers after a fault."""
    with streaming(mesh, pairs) as felt:
        if until is not None:
            wait_until(until, 2 * PLANNED, "the mesh to be whole again", every=0.5)
        await_links(mesh.lab.salt, mesh.name, set(mesh.members), deadline=2 * PLANNED)
    return felt


def ways(mesh: Mesh, pairs: Mapping[str, str]) -> Ways:
    """Return the present paths between the pairs, in both directions, by IPv4."""
    wanted: dict[str, dict[str, tuple[str, ...]]] = {}
    overlay = mesh.overlay()
    for source, target in [*pairs.items(), *((b, a) for a, b in pairs.items())]:
        wanted.setdefault(source, {})[target] = overlay[target][:1]
    return {(t.source, t.target): t.path for t in trips(mesh.lab.underlay, wanted)}


def relays_used(seen: Ways) -> set[str]:
    """Return the machines that forwarded something."""
    return {hop for way in seen.values() for hop in way[1:-1]}


def hops(seen: Ways) -> set[frozenset[str]]:
    """Return the links of the paths."""
    return {frozenset(pair) for way in seen.values() for pair in pairwise(way)}


# --- reports of nodes and the master -------------------------------------------------------------------


def link_report(mesh: Mesh, node: str, neighbour: str) -> dict[str, Any]:
    """Return the watcher's report of the link from *node* to *neighbour*; empty if there is none."""
    return dict(mesh.lab.salt.links(node, mesh.name).get(neighbour, {}))


def link_is(mesh: Mesh, node: str, neighbour: str, state: str) -> bool:
    """Return whether the watcher of *node* reports its link to *neighbour* as *state*."""
    return link_report(mesh, node, neighbour).get("state") == state


def believed(mesh: Mesh) -> dict[str, Any]:
    """Return the watchers' reports of links that are not up, and the master's verdicts."""
    links = {node: mesh.lab.salt.links(node, mesh.name) for node in mesh.members}
    states = {node: {n: link["state"] for n, link in of.items() if link["state"] != "up"} for node, of in links.items()}
    report = status(mesh.lab.salt, mesh.name)
    relays = {node: row["relays"] for node, row in report["nodes"].items()}
    return {"states": states, "relays": relays, **{k: report.get(k) for k in ("outages", "not_acknowledged")}}


def evidence(mesh: Mesh) -> str:
    """Return what helps when such a test fails: verdicts, routes and sessions of each node, and the ends of logs."""
    lines = [json.dumps(believed(mesh), indent=1)]
    commands = (
        ("tail", "-n", "40", "/run/wgmesh/watch.log"),
        ("ip", "route", "show", "table", "all", "proto", str(ROUTE_PROTOCOL)),
        ("wg", "show", "all", "latest-handshakes"),
    )
    for node in mesh.members:
        for argv in commands:
            lines += [f"--- {node}: {' '.join(argv)}", mesh.lab.underlay[node].run(*argv, check=False)]
    lines += ["--- the master's log", mesh.lab.salt.log(mesh.lab.salt.master.name)[-8000:]]
    return "\n".join(lines)


def planned_around(mesh: Mesh, troubles: Iterable[str], gone: Iterable[str] = ()) -> Callable[[], bool]:
    """Return whether the master has reacted to *troubles* (nodes, or links as ``a--b``).

    Each of them counts as down, no leaf has such a node as its first relay, and all nodes but *gone* run that plan.
    """
    wanted, absent = set(troubles), set(gone)

    def planned() -> bool:
        now = status(mesh.lab.salt, mesh.name)
        counted = {name for name, outage in now.get("outages", {}).items() if outage["counts_as"] == "down"}
        firsts = {row["relays"][0] for row in now["nodes"].values() if row["relays"]}
        return wanted <= counted and not firsts & wanted and not set(now["not_acknowledged"]) - absent

    return planned


def link(a: str, b: str) -> str:
    """Return the name of the link between two nodes in the status."""
    return "--".join(sorted((a, b)))


def first_relay(mesh: Mesh, leaf: str) -> str:
    """Return the relay through which *leaf* sends to other sites, by its present routes."""
    machine = mesh.lab.underlay[leaf]
    far = next(a[0] for n, a in mesh.overlay().items() if n.startswith("app" if leaf.startswith("web") else "web"))
    device = machine.json("ip", "-json", "route", "get", far)[0]["dev"]
    (key,) = machine.run("wg", "show", device, "peers").split()
    keys = {n: mesh.lab.underlay[n].run("wg", "show", mesh.name, "public-key").strip() for n in mesh.members}
    return next(n for n, k in keys.items() if k == key)


def whole(mesh: Mesh) -> None:
    """Wait until no node or link is down or in hold-down, on any node and at the master. All paths are as planned."""
    members = set(mesh.members)
    mesh.lab.salt.await_minions(mesh.members)
    await_links(mesh.lab.salt, mesh.name, members, deadline=4 * PLANNED)
    for node in mesh.members:
        _forget(mesh, node)
    await_links(mesh.lab.salt, mesh.name, members, deadline=PLANNED)

    def no_outage() -> bool:
        with suppress(CommandFailed):
            mesh.lab.salt.salt_run("wgmesh.rebalance")
        now = status(mesh.lab.salt, mesh.name)
        return not now.get("outages") and not now["not_acknowledged"]

    wait_until(no_outage, 4 * PLANNED, "the master to report no outage", every=1.0)
    found = mesh.faults()
    assert not found, found


def _forget(mesh: Mesh, node: str) -> None:
    """Clear hold-down times of *node*: if there are any, restart its watcher without its report."""
    machine = mesh.lab.underlay[node]
    if any(link["hold"] for link in mesh.lab.salt.links(node, mesh.name).values()):
        pid = json.loads(machine.run("cat", "/run/wgmesh/watch.pid"))["pid"]
        machine.run("kill", "-9", str(pid))
        machine.run("rm", "-f", f"/run/wgmesh/{mesh.name}.json")
