"""Measurements of the mesh: which nodes reach each other, by which paths, how fast. The planner is not asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from .machine import CommandFailed, Machine
from .underlay import Underlay

_PROBE = (sys.executable, "-I", "-S", str(Path(__file__).with_name("prober.py")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """The measured packets from one machine to an address of another."""

    source: str
    target: str
    address: str
    round_trips: tuple[float, ...]
    """Milliseconds of the requests that were answered, lowest first."""
    path: tuple[str, ...]
    """The machines of the path, both ends included; ``?`` for one that did not answer."""

    @property
    def arrived(self) -> bool:
        """True if a plain request was answered."""
        return bool(self.round_trips)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The result of a steady stream of requests from one machine to an address."""

    source: str
    address: str
    sent: int
    lost: int
    gaps: tuple[tuple[float, float], ...]
    """Start, in seconds since the stream's first packet, and length in seconds, until a request was answered."""


class Stream:
    """A steady stream of echo requests: ``with Stream(…) as stream: …``, then ``stream.losses``."""

    def __init__(self, machine: Machine, addresses: Iterable[str], *, rate: float = 100) -> None:
        self._machine = machine
        self._words = (*_PROBE, "--stream", str(rate), *addresses)
        self.losses: tuple[Loss, ...] = ()

    def __enter__(self) -> Stream:
        self._process = self._machine.spawn(*self._words)
        return self

    def __exit__(self, *error: object) -> None:
        out, err = self._process.communicate(timeout=30)
        if self._process.returncode:
            raise CommandFailed(f"{self._machine.name}: the stream ended with: {err.strip()}")
        self.losses = tuple(
            Loss(
                source=self._machine.name,
                address=address,
                sent=seen["sent"],
                lost=seen["lost"],
                gaps=tuple((start, length) for start, length in seen["gaps"]),
            )
            for address, seen in json.loads(out).items()
        )


def addresses_in(underlay: Underlay, names: Iterable[str], networks: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return machine → its addresses in the networks, as the machine itself has them, IPv4 first."""
    nets = [ip_network(n) for n in networks]
    found = {}
    for name in names:
        mine = [ip_address(a) for a in underlay[name].addresses()]
        inside = {a for a in mine if any(a in n for n in nets if n.version == a.version)}
        found[name] = tuple(str(a) for a in sorted(inside, key=lambda a: (a.version, int(a))))
    return found


def trips(
    underlay: Underlay, targets: Mapping[str, Mapping[str, Iterable[str]]], *, rounds: int = 3, at_once: int = 2
) -> list[Trip]:
    """Measure from each source to each target's addresses: ``{source: {target: [address…]}}``.

    *at_once* sources probe at the same time. The result is sorted by source, target and IP version.
    """
    owners = {a: name for name, machine in underlay.machines.items() for a in machine.addresses()}

    def measure(source: str) -> list[Trip]:
        wanted = [(target, a) for target, addresses in targets[source].items() for a in addresses]
        if not wanted:
            return []
        answer = json.loads(underlay[source].run(*_PROBE, "--rounds", str(rounds), *(a for _, a in wanted)))
        return [
            Trip(
                source=source,
                target=target,
                address=a,
                round_trips=tuple(answer[a]["rtt_ms"]),
                path=(source, *(owners.get(hop, "?") for hop in answer[a]["path"])),
            )
            for target, a in wanted
        ]

    pool = ThreadPoolExecutor(at_once)
    try:
        measured = [trip for some in pool.map(measure, sorted(targets)) for trip in some]
    finally:
        pool.shutdown(cancel_futures=True)
    return sorted(measured, key=lambda t: (t.source, t.target, ":" in t.address, t.address))
