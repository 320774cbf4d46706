"""Forged events of an accepted minion change nothing and delay nothing."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .... import faults
from ....disruption import HEALED, PLANNED, first_relay, mended, streaming, whole
from ....machine import signal_child
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until

FORGER = "laptop"
PAIRS = {"web1": "app1", "web2": "app2"}
LASTS = 150
"""Seconds after which the forger ends by itself, also if the test fails."""


@contextmanager
def forging(mesh: Mesh) -> Iterator[None]:
    """Send a hundred forged events a second to the master.

    At the end the master is restarted, so that later steps do not wait for the rest of the reactor's queue."""
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
        # A minion whose connection broke within a packet notices that only by TCP's timeout.
        mesh.lab.salt.await_minions(deadline=180)


def healed_after(mesh: Mesh) -> tuple[float, float]:
    """Return the seconds without traffic after the death of web1's relay, and until the master plans without it."""
    relay = first_relay(mesh, "web1")

    def plans_without() -> bool:
        return status(mesh.lab.salt, mesh.name).get("outages", {}).get(relay, {}).get("counts_as") == "down"

    with streaming(mesh, PAIRS) as felt, faults.unplugged(mesh.lab.underlay, relay):
        died_at = time.monotonic()
        wait_until(plans_without, 2 * PLANNED, "the master to plan without it")
        took = time.monotonic() - died_at
    assert 0 < felt.longest < HEALED
    return felt.longest, took


def test_forged_events_do_not_delay_healing(mesh: Mesh):
    """Forged events change no plan, and a real failure heals in at most twice the time that it takes without them.

    The time of the master's plan is only printed. The reactor handles one event after another, and on two cores the
    forger alone keeps it busy.
    """
    gap_before, took_before = healed_after(mesh)
    whole(mesh)
    before = {n: row["addresses"] for n, row in status(mesh.lab.salt, mesh.name)["nodes"].items()}
    with forging(mesh):
        with streaming(mesh, PAIRS) as felt:
            began = time.time()
            wait_until(lambda: min(_looked_at(mesh)) > began, 60, "five rounds of the master")
        assert felt.longest < HEALED
        now = status(mesh.lab.salt, mesh.name)
        assert {n: row["addresses"] for n, row in now["nodes"].items()} == before
        gap, took = healed_after(mesh)
    print(f"without traffic for {gap:.2f} s, before the forgery {gap_before:.2f} s")
    print(f"planned around in {took:.1f} s, before the forgery {took_before:.1f} s")
    assert gap <= 2 * gap_before


def test_end_of_forging_loses_no_packet(mesh: Mesh):
    """No packet is lost after the forger has ended, and the plan has the same nodes."""
    assert mended(mesh, PAIRS).losing == []
    assert set(status(mesh.lab.salt, mesh.name)["nodes"]) == set(mesh.members)


def _looked_at(mesh: Mesh) -> list[float]:
    """Return the start times of the master's last five rounds."""
    text = (mesh.lab.salt.master.folder / "salt" / "cache" / "wgmesh" / "converge.lock").read_text()
    return list(json.loads(text)["begun"]) if text.endswith("}") else [0.0]
