"""An accepted minion that forges events changes nothing and holds up nothing."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .... import faults
from ....drill import HEALED, PLANNED, first_relay, mended, streaming, whole
from ....machine import signal_child
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until

FORGER = "laptop"
PAIRS = {"web1": "app1", "web2": "app2"}
LASTS = 150
"""Seconds after which the forger ends by itself, whatever becomes of the test."""


@contextmanager
def forging(mesh: Mesh) -> Iterator[None]:
    """A hundred forged events a second arrive at the master; which is started again at the end, so that nobody waits
    until the reactor is through with what is left."""
    machine = mesh.lab.underlay[FORGER]
    program = str(Path(__file__).with_name("forger.py"))
    process = machine.spawn(sys.executable, program, str(machine.folder / "salt"), str(LASTS), log="forger.log")
    log = machine.folder / "forger.log"
    try:
        wait_until(lambda: "firing" in log.read_text(), 30, "the forger to fire")
        yield
        assert process.poll() is None, log.read_text()
    finally:
        signal_child(process, signal.SIGTERM)
        process.wait(10)
        mesh.lab.salt.stop_master()
        mesh.lab.salt.start_master()
        # A minion whose connection was lost amid a packet finds out by TCP alone, which takes its time.
        mesh.lab.salt.await_minions(deadline=180)


def healed_after(mesh: Mesh) -> tuple[float, float]:
    """Seconds without traffic after the death of web1's relay, and until the master plans without it."""
    relay = first_relay(mesh, "web1")

    def believed() -> bool:
        return status(mesh.lab.salt, mesh.name).get("trouble", {}).get(relay, {}).get("counts_as") == "down"

    with streaming(mesh, PAIRS) as felt, faults.unplugged(mesh.lab.underlay, relay):
        died_at = time.monotonic()
        wait_until(believed, 2 * PLANNED, "the master to plan without it")
        took = time.monotonic() - died_at
    assert 0 < felt.longest < HEALED
    return felt.longest, took


def test_nothing_changes_and_a_real_failure_is_healed_as_fast(mesh: Mesh):
    """In at most twice the time that it takes in peace. How long the plan takes is printed beside it: the reactor takes
    one event after another, and on two cores the forger alone fills it."""
    gap_in_peace, peace = healed_after(mesh)
    whole(mesh)
    before = {n: row["addresses"] for n, row in status(mesh.lab.salt, mesh.name)["nodes"].items()}
    with forging(mesh):
        with streaming(mesh, PAIRS) as felt:
            began = time.time()
            wait_until(lambda: min(_looked_at(mesh)) > began, 60, "the master to look into it five times")
        assert felt.longest < HEALED
        now = status(mesh.lab.salt, mesh.name)
        assert {n: row["addresses"] for n, row in now["nodes"].items()} == before
        gap, took = healed_after(mesh)
    print(f"without traffic for {gap:.2f} s, beside {gap_in_peace:.2f} s in peace")
    print(f"planned around in {took:.1f} s, beside {peace:.1f} s in peace")
    assert gap <= 2 * gap_in_peace


def test_afterwards_all_is_as_before(mesh: Mesh):
    assert mended(mesh, PAIRS).losing == []
    assert set(status(mesh.lab.salt, mesh.name)["nodes"]) == set(mesh.members)


def _looked_at(mesh: Mesh) -> list[float]:
    """When the master's last five rounds began."""
    text = (mesh.lab.salt.master.folder / "salt" / "cache" / "wgmesh" / "converge.lock").read_text()
    return list(json.loads(text)["begun"]) if text.endswith("}") else [0.0]
