"""UDP at a steady rate between machines, counted for each direction."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import CommandFailed, Machine
from .underlay import Underlay

_CASTER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("caster.py")))
PORT = 7008


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Datagrams from one machine to an address of another."""

    source: str
    target: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The datagrams of a flow that arrived and that were lost."""

    flow: Flow
    began: float
    """Seconds since the epoch."""
    sent: int
    gaps: tuple[tuple[float, int], ...]
    """For each run of lost datagrams: when the first was sent, in seconds since *began*, and their number."""

    @property
    def lost(self) -> int:
        """The number of lost datagrams."""
        return sum(count for _, count in self.gaps)


class Exchange:
    """``with Exchange(underlay, flows) as one: …``. Afterwards ``one.deliveries`` has one result per flow."""

    def __init__(self, underlay: Underlay, flows: Iterable[Flow], *, rate: float = 100, port: int = PORT) -> None:
        self._flows = tuple(flows)
        self._rate, self._port = rate, port
        names = {name for flow in self._flows for name in (flow.source, flow.target)}
        self._machines: Mapping[str, Machine] = {name: underlay[name] for name in sorted(names)}
        self.deliveries: tuple[Delivery, ...] = ()

    def __enter__(self) -> Exchange:
        self._running: dict[str, subprocess.Popen[str]] = {}
        for name, machine in self._machines.items():
            words = [f"{number}={flow.address}" for number, flow in enumerate(self._flows) if flow.source == name]
            self._running[name] = machine.spawn(*_CASTER, str(self._port), str(self._rate), *words)
        for name, process in self._running.items():
            if process.stdout is None or process.stdout.readline().strip() != "ready":
                self._kill()
                raise CommandFailed(f"{name}: no exchange: {process.communicate()[1].strip()[-500:]}")
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            if process.stdin:
                process.stdin.close()
                process.stdin = None
        told = {name: json.loads(process.communicate(timeout=60)[0]) for name, process in self._running.items()}
        self.deliveries = tuple(
            delivery(flow, told[flow.source], told[flow.target]["heard"].get(str(number), ()))
            for number, flow in enumerate(self._flows)
        )

    def _kill(self) -> None:
        for process in self._running.values():
            process.kill()


def delivery(flow: Flow, cast: Mapping[str, Any], heard: Sequence[Sequence[int]]) -> Delivery:
    """Return the delivery of a flow, from its sender's report *cast* and the ranges of numbers that were heard."""
    turns = cast["turns"]
    gaps, expected = [], 0
    for first, last in [*heard, (len(turns), len(turns))]:
        if first > expected:
            gaps.append((turns[expected], first - expected))
        expected = last + 1
    return Delivery(flow=flow, began=cast["began"], sent=len(turns), gaps=tuple(gaps))
