"""wgmesh in the two sites: with the watcher or the beacon alone, with the master or without it."""

from __future__ import annotations

import json
import signal
from typing import Any

from bench.twosites import LEAVES, NODES, OVERLAY, RELAYS, TOPOLOGY
from saltext_wgmesh.minion.watcher.instance import WATCHER_COMMAND
from tests.lab import planned, processes
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.mesh import Mesh, failures
from tests.lab.wait import wait_until

MESH = "wg0"
POLICY = {
    "wgmesh": {
        MESH: {
            "network": OVERLAY,
            "topology": "partial",
            "sites": {"west": {"relays": list(RELAYS)}, "east": {"relays": list(RELAYS)}},
            "nodes": {
                **{relay: {"role": "relay", "endpoint": TOPOLOGY.machine(relay).address} for relay in RELAYS},
                "west*": {"site": "west", "nat": True},
                "east*": {"site": "east", "nat": True},
            },
        }
    }
}
FILE = f"/run/wgmesh/{MESH}.json"
WATCHER = WATCHER_COMMAND[-1]


class Ours:
    """A Salt fleet with the formula applied."""

    def __init__(self, name: str, *, master: bool, watcher: bool) -> None:
        self.name = name
        self.period = 0.0 if watcher else 1.0
        self._has_master = master
        self._has_watcher = watcher
        self._homes: dict[str, Any] = {}

    def start(self, lab: Lab) -> None:
        lab.salt.set_policy(POLICY)
        lab.salt.start()
        mesh = self._mesh(lab)
        broken = failures(mesh.apply(), NODES)
        assert not broken, broken
        mesh.settle()
        self._homes = self._relays(lab)
        if not self._has_watcher:
            self._end_watchers(lab)
        if not self._has_master:
            lab.salt.stop_master()

    def addresses(self, lab: Lab) -> dict[str, str]:
        overlay = self._mesh(lab).overlay()
        return {leaf: overlay[leaf][0] for leaf in LEAVES}

    def noticed(self, lab: Lab) -> bool:
        """Return whether the leaves run a plan without what failed. The relay itself may be unreachable."""
        if not self._has_master:
            return True
        now = planned.status(lab.salt, MESH)
        return bool(now.get("outages")) and not set(now["not_acknowledged"]) & set(LEAVES)

    def ready(self, lab: Lab) -> None:
        """Wait until all links are up, watchers remember no failure, and leaves have the relays of the start."""
        if self._has_master:
            lab.salt.await_minions()
            wait_until(lambda: self._calm(lab), 180, "nothing to count as down", every=2)
            lab.salt.salt_run("wgmesh.rebalance")
            planned.await_settled(lab.salt, MESH, set(NODES))
        if self._has_watcher:
            # A link that flapped is held down. A new watcher without the old link report starts without hold-down.
            for node in NODES:
                self._end(lab.underlay[node], "--supervise", inverse=True)
                lab.underlay[node].run("rm", "-f", FILE)
        wait_until(lambda: self._all_up(lab), 60, "all links to be up", every=0.5)
        if self._has_master:
            wait_until(lambda: self._relays(lab) == self._homes, 60, f"the relays {self._homes}", every=1)

    def _mesh(self, lab: Lab) -> Mesh:
        return Mesh(lab=lab, name=MESH, networks=(OVERLAY,), members=NODES)

    def _relays(self, lab: Lab) -> dict[str, Any]:
        return {node: row["relays"] for node, row in planned.status(lab.salt, MESH)["nodes"].items()}

    def _calm(self, lab: Lab) -> bool:
        lab.salt.salt_run("wgmesh.converge")
        outages = planned.status(lab.salt, MESH).get("outages", {})
        return not [name for name, outage in outages.items() if outage["counts_as"] == "down"]

    def _all_up(self, lab: Lab) -> bool:
        for node in NODES:
            text = lab.underlay[node].run("cat", FILE, check=False)
            report = json.loads(text) if text else {"links": {}, "from_watcher": None}
            states = {link["state"] for link in report["links"].values()}
            if report["from_watcher"] is not self._has_watcher or states != {"up"}:
                return False
        return True

    def _end_watchers(self, lab: Lab) -> None:
        """End all watchers. None is restarted: Salt starts engines only when a minion starts."""
        for node in NODES:
            self._end(lab.underlay[node], "--supervise")
            self._end(lab.underlay[node], "--supervise", inverse=True)
            lab.underlay[node].run("rm", "-f", FILE)

    @staticmethod
    def _end(machine: Machine, word: str, *, inverse: bool = False) -> None:
        """Kill the watcher's processes with *word* in their command line, or with *inverse* those without it."""
        for process in processes.tagged(machine.tag):
            ours = process.machine == machine.name and f"-m {WATCHER}" in process.command
            if ours and (word in process.command) is not inverse:
                processes.kill(process.pid, signal.SIGKILL)
