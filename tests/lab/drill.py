"""Breaking something while traffic runs, and saying what the traffic felt and by which ways it went."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from saltext_wgmesh.core.names import ROUTE_PROTOCOL

from .machine import CommandFailed
from .mesh import Mesh, losing
from .overlay import Loss, trips
from .planned import await_links, status
from .wait import wait_until

HEALED = 2.0
"""Seconds: a loose bound for machines that do much else. How fast it is, the benchmark measures."""
PLANNED = 45.0
"""Seconds in which the master has heard of it, made another plan and had it applied: as loose."""
Ways = dict[tuple[str, str], tuple[str, ...]]
"""(Source, target) → the machines on the way, both ends included."""


@dataclass(slots=True, kw_only=True)
class Felt:
    """What the streams of a drill felt; filled when it is over."""

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
    """Streams at 100 Hz run in both directions between each source and its target; their gaps are printed at the end.

    They run before anything happens, and still do when all is over: each end of the block waits for answers.
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
    """Each source reaches its target, three times in a row."""
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
    """What the streams felt of *fault*, which lasted until its consequence *until* was there; and their ways then.

    The ways of pairs that did not reach each other end where the last one on the way was seen.
    """
    with streaming(mesh, pairs) as felt, fault:
        wait_until(until, PLANNED, "the consequence of the fault", every=0.5)
        seen = ways(mesh, pairs)
        # What ends is not told to anybody either.
    return felt, seen


def mended(mesh: Mesh, pairs: Mapping[str, str], until: Callable[[], object] | None = None) -> Felt:
    """What the streams felt while the mesh became whole again after a fault had ended."""
    with streaming(mesh, pairs) as felt:
        if until is not None:
            wait_until(until, 2 * PLANNED, "the mesh to be whole again", every=0.5)
        await_links(mesh.lab.salt, mesh.name, set(mesh.members), deadline=2 * PLANNED)
    return felt


def ways(mesh: Mesh, pairs: Mapping[str, str]) -> Ways:
    """The ways that packets take now between the pairs, in both directions, by IPv4."""
    wanted: dict[str, dict[str, tuple[str, ...]]] = {}
    overlay = mesh.overlay()
    for source, target in [*pairs.items(), *((b, a) for a, b in pairs.items())]:
        wanted.setdefault(source, {})[target] = overlay[target][:1]
    return {(t.source, t.target): t.path for t in trips(mesh.lab.underlay, wanted)}


def relays_used(seen: Ways) -> set[str]:
    """The machines that forwarded something."""
    return {hop for way in seen.values() for hop in way[1:-1]}


def hops(seen: Ways) -> set[frozenset[str]]:
    """The links that the ways went by."""
    return {frozenset(pair) for way in seen.values() for pair in pairwise(way)}


# --- what nodes and the master believe -----------------------------------------------------------------


def word(mesh: Mesh, node: str, neighbour: str) -> dict[str, Any]:
    """What the watcher of *node* says of its link to *neighbour*; empty if it says nothing."""
    return dict(mesh.lab.salt.links(node, mesh.name).get(neighbour, {}))


def says(mesh: Mesh, node: str, neighbour: str, state: str) -> bool:
    """Whether the watcher of *node* says that its link to *neighbour* is *state*."""
    return word(mesh, node, neighbour).get("state") == state


def believed(mesh: Mesh) -> dict[str, Any]:
    """What the watchers say of links that are not up, and what the master has made of it."""
    links = {node: mesh.lab.salt.links(node, mesh.name) for node in mesh.members}
    words = {node: {n: told["state"] for n, told in of.items() if told["state"] != "up"} for node, of in links.items()}
    told = status(mesh.lab.salt, mesh.name)
    relays = {node: row["relays"] for node, row in told["nodes"].items()}
    return {"words": words, "relays": relays, **{k: told.get(k) for k in ("trouble", "not_acknowledged")}}


def evidence(mesh: Mesh) -> str:
    """What to look at when a drill fails: what is believed, each node's routes and sessions, and the ends of logs."""
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
    """Whether the master counts each of *troubles* (nodes, or links as ``a--b``) as down, no leaf has such a node for
    its first relay, and all but *gone* run the plan that follows."""
    wanted, absent = set(troubles), set(gone)

    def planned() -> bool:
        now = status(mesh.lab.salt, mesh.name)
        counted = {name for name, told in now.get("trouble", {}).items() if told["counts_as"] == "down"}
        firsts = {row["relays"][0] for row in now["nodes"].values() if row["relays"]}
        return wanted <= counted and not firsts & wanted and not set(now["not_acknowledged"]) - absent

    return planned


def link(a: str, b: str) -> str:
    """The link between two nodes, as the status names it."""
    return "--".join(sorted((a, b)))


def first_relay(mesh: Mesh, leaf: str) -> str:
    """The relay by which *leaf* sends to other sites now, by its own routes."""
    machine = mesh.lab.underlay[leaf]
    far = next(a[0] for n, a in mesh.overlay().items() if n.startswith("app" if leaf.startswith("web") else "web"))
    device = machine.json("ip", "-json", "route", "get", far)[0]["dev"]
    (key,) = machine.run("wg", "show", device, "peers").split()
    keys = {n: mesh.lab.underlay[n].run("wg", "show", mesh.name, "public-key").strip() for n in mesh.members}
    return next(n for n, k in keys.items() if k == key)


def whole(mesh: Mesh) -> None:
    """Nothing is down, rests or is damped on any node or at the master, and every pair goes as planned."""
    members = set(mesh.members)
    mesh.lab.salt.await_minions(mesh.members)
    await_links(mesh.lab.salt, mesh.name, members, deadline=4 * PLANNED)
    for node in mesh.members:
        _forget(mesh, node)
    await_links(mesh.lab.salt, mesh.name, members, deadline=PLANNED)

    def calm() -> bool:
        with suppress(CommandFailed):
            mesh.lab.salt.salt_run("wgmesh.rebalance")
        now = status(mesh.lab.salt, mesh.name)
        return not now.get("trouble") and not now["not_acknowledged"]

    wait_until(calm, 4 * PLANNED, "the master to know of no trouble", every=1.0)
    found = mesh.faults()
    assert not found, found


def _forget(mesh: Mesh, node: str) -> None:
    """The watcher of *node* remembers no link that was down: if it does, it is started again without its memory."""
    machine = mesh.lab.underlay[node]
    if any(told["hold"] for told in mesh.lab.salt.links(node, mesh.name).values()):
        pid = json.loads(machine.run("cat", "/run/wgmesh/watch.pid"))["pid"]
        machine.run("kill", "-9", str(pid))
        machine.run("rm", "-f", f"/run/wgmesh/{mesh.name}.json")
