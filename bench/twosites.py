"""Two sites behind NAT that reach each other through two relays only: the network of the failover benchmark.

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
    """A system that connects the leaves through the relays."""

    name: str
    period: float
    """Period of the slowest timer that finds a failure, in seconds. The failures are spread over it."""

    def start(self, lab: Lab) -> None:
        """Start the system in a lab whose underlay is up."""

    def addresses(self, lab: Lab) -> dict[str, str]:
        """Return the leaves' overlay addresses."""

    def noticed(self, lab: Lab) -> bool:
        """Return whether the system has finished reacting to a failure."""

    def ready(self, lab: Lab) -> None:
        """Wait until all is as before the first failure. Raises TimedOut."""


def build(lab: Lab) -> None:
    """Build the underlay. The sites' routers forward nothing to each other."""
    lab.underlay.build()
    for router, other in (("west-router", "east-router"), ("east-router", "west-router")):
        lab.underlay[router].run("ip", "route", "add", "blackhole", TOPOLOGY.machine(other).address)


def reaches(lab: Lab, source: str, address: str) -> bool:
    """Return whether a few echo requests in a row, 100 ms apart, are all answered."""
    words = ("ping", "-q", "-c", "5", "-i", "0.1", "-W", "1", "-w", "2", address)
    try:
        return " 5 received" in lab.underlay[source].run(*words)
    except CommandFailed:
        return False


def busiest(underlay: Underlay, wait: Callable[[], object]) -> str:
    """Return the relay whose cable carries the most bytes while *wait* runs."""
    before = _received(underlay)
    wait()
    after = _received(underlay)
    return max(RELAYS, key=lambda relay: after[relay] - before[relay])


def _received(underlay: Underlay) -> dict[str, int]:
    counters = {x["ifname"]: x for x in underlay[FABRIC].json("ip", "-json", "-stats", "link", "show")}
    names = [spec.name for spec in underlay.topology.machines]
    return {r: int(counters[f"m{names.index(r)}p0"]["stats64"]["tx"]["bytes"]) for r in RELAYS}
