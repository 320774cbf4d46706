"""False alarms of watchers on a loaded host: links called down a minute, by scheduling class, while no link is down.

A relay and its leaves are machines of one host with real watchers, and busy loops run beside them. Each line of a
watcher's log that calls a link down counts. WireGuard in userspace gets real-time priority, since it stands for the
kernel, which busy programs do not delay. So a packet is late only if a watcher is.

    WGMESH_BENCH_MINUTES=5         length of each measurement
    WGMESH_BENCH_LOOPS=8           busy loops
    WGMESH_BENCH_LEAVES=2          leaves, each with a watcher, beside the relay's one
    WGMESH_BENCH_CLASSES=SCHED_RR  only these classes, separated by semicolons; the results of others stay as they are
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import fleet
from bench.rows import Measure
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.minion.watcher.process import PRIORITY, WATCHER_COMMAND
from tests.lab import processes
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.topology import Topology, host
from tests.lab.wait import wait_until

MINUTES = float(os.environ.get("WGMESH_BENCH_MINUTES", "5"))
LOOPS = int(os.environ.get("WGMESH_BENCH_LOOPS", "8"))
LEAVES = int(os.environ.get("WGMESH_BENCH_LEAVES", "2"))
CHOSEN = os.environ.get("WGMESH_BENCH_CLASSES", "")
PARTIAL = bool(CHOSEN)
MESH, RELAY = "wg0", "relay"
LOG = "watch.log"
DOWN = re.compile(r" is (?:down|blackhole) \(")
KEY = "from saltext_wgmesh.minion.state import keys; from saltext_wgmesh.minion.system.host import Host; "
KEY += "print(keys.ensure(Host()))"
TAKE = """
import json, sys
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.system.host import Host
apply.apply(Host(), View.from_dict(json.load(sys.stdin)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """The way in which the kernel schedules the watchers (sched(7))."""

    name: str
    nice: int = 0
    real_time: int = 0
    """Priority in SCHED_RR; 0: SCHED_OTHER."""

    def give_to(self, pid: int) -> None:
        """Schedule all threads of the process *pid* in this way."""
        processes.favour(pid, self.nice)
        if self.real_time:
            make_real_time(pid, self.real_time)


CLASSES = (
    Scheduling(name="SCHED_OTHER, nice 0"),
    Scheduling(name=f"SCHED_OTHER, nice {PRIORITY}", nice=PRIORITY),
    Scheduling(name="SCHED_RR", real_time=10),
)


def make_real_time(pid: int, priority: int) -> None:
    """Give all threads of the process *pid* that priority in SCHED_RR. PermissionError where it is not allowed."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(priority))


def run() -> list[Measure]:
    """Measure each class on a host of its own."""
    known = {scheduling.name for scheduling in CLASSES}
    chosen = set(CHOSEN.split(";")) if CHOSEN else known
    if chosen - known:
        raise SystemExit(f"WGMESH_BENCH_CLASSES: no class {', '.join(sorted(chosen - known))}: there are {known}")
    return [alarms(scheduling) for scheduling in CLASSES if scheduling.name in chosen]


def alarms(scheduling: Scheduling) -> Measure:
    """Return how many links the watchers call down a minute."""
    with Lab(_topology()) as lab:
        lab.underlay.build()
        machines = [lab.underlay[name] for name in _names()]
        _join(machines)
        watchers = [machine.spawn(*WATCHER_COMMAND, log=LOG) for machine in machines]
        wait_until(lambda: all(_is_up(machine) for machine in machines), 60, "all links to be up", every=0.5)
        for watcher in watchers:
            (pid,) = processes.children(watcher.pid)
            scheduling.give_to(pid)
        before = _downs(machines)
        with _load(machines[0]):
            time.sleep(MINUTES * 60)
        assert all(watcher.poll() is None for watcher in watchers)
        found = _downs(machines) - before
    metric = f"{scheduling.name}: links called down, {LOOPS} busy loops on {os.cpu_count()} cores"
    return Measure(metric=metric, value=found / MINUTES, unit="a minute")


def _names() -> list[str]:
    return [RELAY, *(f"leaf{i}" for i in range(LEAVES))]


def _topology() -> Topology:
    machines = tuple(host(name, "lan", f"192.0.2.{i + 1}/24") for i, name in enumerate(_names()))
    return Topology(machines=machines, master=RELAY, minions=())


def _join(machines: list[Machine]) -> None:
    """Have the machines be a relay and its leaves."""
    facts = {
        machine.name: replace(fleet.facts(machine.name, i), public_key=machine.run(sys.executable, "-c", KEY).strip())
        for i, machine in enumerate(machines)
    }
    rules = {RELAY: {"role": "relay", "endpoint": "192.0.2.1"}, "leaf*": {"site": "s", "nat": True}}
    raw = {MESH: {"network": "10.100.0.0/16", "sites": {"s": {"relays": [RELAY]}}, "nodes": rules}}
    views = planner.plan_mesh(policy.parse_policy(raw).meshes[MESH], facts, Allocations()).views
    for machine in machines:
        _take(machine, views[machine.name])
        for process in processes.tagged(machine.tag):
            if process.machine == machine.name and "wireguard-go" in process.command:
                make_real_time(process.pid, 20)


def _take(machine: Machine, view: View) -> None:
    machine.run(sys.executable, "-c", TAKE, stdin=json.dumps(view.as_dict()))


def _is_up(machine: Machine) -> bool:
    text = machine.run("cat", f"/run/wgmesh/{MESH}.json", check=False)
    links = json.loads(text)["links"].values() if text else ()
    return bool(links) and all(link["state"] == "up" for link in links)


def _downs(machines: list[Machine]) -> int:
    return sum(len(DOWN.findall((machine.folder / LOG).read_text(encoding="utf-8"))) for machine in machines)


@contextmanager
def _load(machine: Machine) -> Iterator[None]:
    """Have LOOPS busy loops run on the host, in one session as those of one user."""
    loops = f"for each in $(seq {LOOPS}); do while :; do :; done & done; wait"
    process = machine.spawn("sh", "-c", loops, log="load.log")
    try:
        yield
    finally:
        ended = [p for p in processes.tagged(machine.tag) if "while :;" in p.command]
        for each in ended:
            processes.kill(each.pid, 9)
        process.wait(10)
