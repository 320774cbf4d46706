"""Time without traffic after a relay's power cut, and after one cut link between a leaf and a relay.

The result is the longest gap of two streams of 100 echo requests a second. Each stream comes from one of two leaves
that reach each other through two relays only. The failure hits the relay or link that carries the streams, found by
the bytes on the relays' cables. All systems run in the same network, one after the other. If a system has not
recovered after 90 s, the result is 90.

    WGMESH_BENCH_RUNS=1            fewer runs of each failure than 5
    WGMESH_BENCH_SYSTEMS=tinc;…    only the systems of these names; the results of others stay as they are
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from bench import twosites
from bench.ours import Ours
from bench.rivals import Babel, Nebula, Tinc
from bench.rows import Measure
from bench.twosites import LEAVES, ROUTERS, System
from tests.lab import faults
from tests.lab.lab import Lab
from tests.lab.overlay import Stream
from tests.lab.wait import TimedOut, wait_until

SYSTEMS = os.environ.get("WGMESH_BENCH_SYSTEMS", "")
PARTIAL = bool(SYSTEMS)
LIMIT = 90.0
RATE = 100.0
NOTICED = 60
"""Seconds in which a system must have finished its reaction, once traffic flows again."""
SETTLE = 2.0
"""Seconds of traffic before a failure."""

Fault = Callable[[Lab, str], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {
    "relay's power cut": lambda lab, relay: faults.unplugged(lab.underlay, relay),
    "leaf-relay link cut": lambda lab, relay: faults.cut(lab.underlay, ROUTERS[LEAVES[0]], relay),
}


def systems() -> list[tuple[System, str]]:
    """Return each system with its goal."""
    return [
        (Ours("wgmesh", master=True, watcher=True), "<= 0.4"),
        (Ours("wgmesh, master stopped", master=False, watcher=True), "<= 0.4"),
        (Babel(0.2), ""),
        (Babel(1), ""),
        (Ours("wgmesh, beacon alone", master=True, watcher=False), "<= 15"),
        (Babel(None), ""),
        (Nebula(), ""),
        (Tinc(), ""),
    ]


def run() -> list[Measure]:
    """Return median and 95th percentile of each system and failure."""
    runs = int(os.environ.get("WGMESH_BENCH_RUNS", "5"))
    rows = []
    for system, goal in systems():
        if not SYSTEMS or system.name in SYSTEMS.split(";"):
            for failure, gaps in measure(system, runs).items():
                what = f"{failure}: {system.name}"
                rows += [
                    Measure(metric=f"{what}, median", value=statistics.median(gaps), unit="s", runs=runs),
                    Measure(metric=f"{what}, p95", value=p95(gaps), unit="s", goal=goal, runs=runs),
                ]
    return rows


def measure(system: System, runs: int) -> dict[str, list[float]]:
    """Return failure → the gaps of its runs, in seconds."""
    found: dict[str, list[float]] = {failure: [] for failure in FAULTS}
    with Lab(twosites.TOPOLOGY) as lab:
        twosites.build(lab)
        system.start(lab)
        for number in range(runs):
            for failure, fault in FAULTS.items():
                system.ready(lab)
                # A failure may come at any time between two ticks of a timer.
                time.sleep(system.period * (number + 0.5) / runs)
                found[failure].append(gap(lab, system, fault))
                print(f"{system.name}: {failure}: {found[failure][-1]:.3f} s", flush=True)
    return found


def gap(lab: Lab, system: System, fault: Fault) -> float:
    """Return the longest gap, in seconds, from before the failure until it is over."""
    addresses = system.addresses(lab)
    west, east = LEAVES

    def flows() -> bool:
        return twosites.reaches(lab, west, addresses[east]) and twosites.reaches(lab, east, addresses[west])

    with ExitStack() as stack:
        streams = [
            stack.enter_context(Stream(lab.underlay[a], [addresses[b]], rate=RATE)) for a, b in (LEAVES, LEAVES[::-1])
        ]
        relay = twosites.busiest(lab.underlay, lambda: time.sleep(SETTLE))
        with fault(lab, relay):
            try:
                wait_until(flows, LIMIT, "traffic")
                wait_until(lambda: system.noticed(lab), NOTICED, f"{system.name} to finish its reaction", every=0.5)
            except TimedOut as error:
                print(error, flush=True)
    longest = max((length for s in streams for loss in s.losses for _, length in loss.gaps), default=0.0)
    assert longest > 2 / RATE, f"{system.name}: the failure met no traffic"
    return min(longest, LIMIT)


def p95(gaps: list[float]) -> float:
    """Return the 95th percentile by nearest rank: of 5 runs the longest."""
    return sorted(gaps)[math.ceil(0.95 * len(gaps)) - 1]
