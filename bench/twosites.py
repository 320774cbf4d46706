"""Two sites behind NAT that reach each other by two relays only: what failover is measured in.

::

    west1 ── west-router ──┬──  relay1  ──┬── east-router ── east1
                           └──  relay2  ──┘
                  (and the master, on the segment of the relays)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tests.lab.lab import Lab
from tests.lab.machine import CommandFailed
from tests.lab.topology import MachineSpec, Nat, Port, Topology, host
from tests.lab.underlay import FABRIC, Underlay

MASTER = "master"
RELAYS = ("relay1", "relay2")
LEAVES = ("west1", "east1")
ROUTERS = {"west1": "west-router", "east1": "east-router"}
NODES = (*RELAYS, *LEAVES)
OVERLAY = "10.99.0.0/24"


def _router(name: str, segment: str, outside: str, inside: str, lan: str) -> MachineSpec:
    ports = (Port(segment="internet", addresses=(outside,)), Port(segment=segment, addresses=(inside,)))
    return MachineSpec(name=name, ports=ports, forward=True, nat=Nat(outside="eth0", hidden=(lan,)))


TOPOLOGY = Topology(
    master=MASTER,
    minions=NODES,
    machines=(
        host(MASTER, "internet", "198.51.100.10/24"),
        host("relay1", "internet", "198.51.100.21/24"),
        host("relay2", "internet", "198.51.100.22/24"),
        _router("west-router", "west", "198.51.100.1/24", "10.1.1.1/24", "10.1.1.0/24"),
        _router("east-router", "east", "198.51.100.2/24", "10.2.2.1/24", "10.2.2.0/24"),
        host("west1", "west", "10.1.1.21/24", "10.1.1.1"),
        host("east1", "east", "10.2.2.31/24", "10.2.2.1"),
    ),
)


class System(Protocol):
    """Something that connects the leaves by way of the relays."""

    name: str
    period: float
    """Seconds of its slowest timer that a failure is found by: the failures are spread over it."""

    def start(self, lab: Lab) -> None:
        """It begins to run on a lab whose underlay is up."""

    def addresses(self, lab: Lab) -> dict[str, str]:
        """The leaves' overlay addresses."""

    def noticed(self, lab: Lab) -> bool:
        """Whether all has come to an end that a failure brings about."""

    def ready(self, lab: Lab) -> None:
        """All is as it was before the first failure; TimedOut if that can't be."""


def build(lab: Lab) -> None:
    """The underlay is up, and the sites' routers forward nothing to each other."""
    lab.underlay.build()
    for router, other in (("west-router", "east-router"), ("east-router", "west-router")):
        lab.underlay[router].run("ip", "route", "add", "blackhole", TOPOLOGY.machine(other).address)


def reaches(lab: Lab, source: str, address: str) -> bool:
    """Whether a few echo requests in a row, 100 ms apart, are all answered."""
    words = ("ping", "-q", "-c", "5", "-i", "0.1", "-W", "1", "-w", "2", address)
    try:
        return " 5 received" in lab.underlay[source].run(*words)
    except CommandFailed:
        return False


def busiest(underlay: Underlay, wait: Callable[[], object]) -> str:
    """The relay that gets the most bytes while *wait* is at work, as its cable shows it."""
    before = _received(underlay)
    wait()
    after = _received(underlay)
    return max(RELAYS, key=lambda relay: after[relay] - before[relay])


def _received(underlay: Underlay) -> dict[str, int]:
    counters = {x["ifname"]: x for x in underlay[FABRIC].json("ip", "-json", "-stats", "link", "show")}
    names = [spec.name for spec in underlay.topology.machines]
    return {r: int(counters[f"m{names.index(r)}p0"]["stats64"]["tx"]["bytes"]) for r in RELAYS}
