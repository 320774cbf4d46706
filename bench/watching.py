"""Cost of watching on a relay: the watcher's share of a core, and the milliseconds of a call of the beacon.

The watcher is the real program on a machine of its own, with a planned view, real sockets and a real WireGuard device.
One program (``answerer.py``) on a second machine plays its N leaves. It speaks BFD from N addresses, so that the
relay's device has one peer with all of them as allowed-ips. The figures count the watcher with the commands that it
runs, but neither WireGuard nor the other machine. Packets are those of the device's counters, in both directions.

The beacon is timed in a process of its own, on a device that has all N peers.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import fleet
from bench.rows import Measure
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.minion.watcher.instance import WATCHER_COMMAND
from tests.lab import processes
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.topology import Topology, host
from tests.lab.wait import wait_until

SESSIONS = (10, 100, 500)
PEERS = (10, 100, 1_000)
RUNS = 5
WINDOW = 10.0
"""Seconds of one run, which includes one comparison with the kernel's routes."""
CALLS = 40
MESH, RELAY = "wg0", "relay"
UNDERLAY = {"relay": "192.0.2.1", "leaves": "192.0.2.2"}
HERE = Path(__file__).parent


def run() -> list[Measure]:
    """Measure the watcher at each number of sessions, then the beacon at each number of peers."""
    rows = []
    for sessions in SESSIONS:
        with Lab(_topology()) as lab:
            lab.underlay.build()
            rows += watcher(lab, sessions)
    for peers in PEERS:
        with Lab(_topology()) as lab:
            lab.underlay.build()
            rows += beacon(lab.underlay[RELAY], peers)
    return rows


def watcher(lab: Lab, sessions: int) -> list[Measure]:
    """Return percent of a core, and packets a second, when all sessions are up at their negotiated rate."""
    relay, leaves = lab.underlay[RELAY], lab.underlay["leaves"]
    view = relay_view(sessions)
    addresses = [peer.address for i in view.interfaces for peer in i.peers]
    _tunnel(relay, leaves, view.addresses[0], addresses)
    _store(relay, view)
    words = (sys.executable, str(HERE / "answerer.py"), MESH, view.addresses[0])
    ends = leaves.spawn("sh", "-c", 'f=$1; shift; exec "$@" < $f', "sh", "/run/leaves.json", *words, log="answerer.log")
    watch = relay.spawn(*WATCHER_COMMAND, log="watch.log")
    wait_until(lambda: _all_up(relay, sessions), 60, f"{sessions} sessions to be up", every=0.5)
    (pid,) = processes.children(watch.pid)
    cores, packets = zip(*(_window(relay, pid) for _ in range(RUNS)), strict=True)
    assert ends.poll() is None
    assert _all_up(relay, sessions)
    return [
        *_spread(f"watcher, {sessions} sessions", cores, "% of a core"),
        Measure(
            metric=f"BFD packets both ways, {sessions} sessions",
            value=statistics.median(packets),
            unit="packets/s",
            goal="<= 1200",
            runs=RUNS,
        ),
    ]


def beacon(machine: Machine, peers: int) -> list[Measure]:
    """Return the milliseconds of a call with and without the watcher's file, and of a comparison with the view."""
    view = json.dumps(relay_view(peers).as_dict())
    taken = json.loads(machine.run(sys.executable, str(HERE / "looks.py"), str(CALLS), stdin=view, timeout=240))
    return [
        *_spread(f"beacon beside the watcher, {peers} peers", taken["watched"], "ms", goal="<= 5"),
        *_spread(f"beacon without a watcher, {peers} peers", taken["unwatched"], "ms"),
        *_spread(f"look for drift, {peers} peers", taken["drift"], "ms"),
    ]


def relay_view(leaves: int) -> View:
    """Return the planned view of a relay with as many leaves, all behind NAT, and no other relay."""
    rules = {RELAY: {"role": "relay", "endpoint": UNDERLAY[RELAY]}, "leaf*": {"site": "s", "nat": True}}
    raw = {MESH: {"network": "10.100.0.0/16", "sites": {"s": {"relays": [RELAY]}}, "nodes": rules}}
    nodes = [RELAY, *(f"leaf{i}" for i in range(leaves))]
    facts = {node: fleet.facts(node, i) for i, node in enumerate(nodes)}
    return planner.plan_mesh(policy.parse_policy(raw).meshes[MESH], facts, Allocations()).views[RELAY]


def _topology() -> Topology:
    machines = tuple(host(name, "lan", f"{address}/24") for name, address in UNDERLAY.items())
    return Topology(machines=machines, master="leaves", minions=())


def _tunnel(relay: Machine, leaves: Machine, own: str, addresses: Sequence[str]) -> None:
    """Make one WireGuard link between the two. Each of *addresses* is an address of its far end."""
    ends = ((relay, [own], "leaves"), (leaves, addresses, RELAY))
    keys = {}
    for machine, local, _ in ends:
        machine.run("sh", "-c", f"ip link add {MESH} type wireguard 2>/dev/null || wireguard-go {MESH}")
        machine.run("sh", "-c", f"wg genkey > /run/key && wg set {MESH} private-key /run/key listen-port 51820")
        keys[machine.name] = machine.run("wg", "show", MESH, "public-key").strip()
        lines = [f"address add {address}/32 dev {MESH}" for address in local]
        machine.run("ip", "-batch", "-", stdin="\n".join([*lines, f"link set {MESH} up", ""]))
    for machine, _, other in ends:
        far = addresses if machine is relay else [own]
        allowed = ",".join(f"{address}/32" for address in far)
        machine.run(
            "wg", "set", MESH, "peer", keys[other], "endpoint", f"{UNDERLAY[other]}:51820", "allowed-ips", allowed
        )
        machine.run("ip", "-batch", "-", stdin="".join(f"route add {address} dev {MESH}\n" for address in far))
    leaves.run("sh", "-c", "cat > /run/leaves.json", stdin=json.dumps(list(addresses)))


def _store(relay: Machine, view: View) -> None:
    folder = f"/var/lib/wgmesh/{MESH}"
    relay.run("sh", "-c", f"mkdir -p {folder} && cat > {folder}/view.json", stdin=json.dumps(view.as_dict()))


def _all_up(relay: Machine, sessions: int) -> bool:
    text = relay.run("cat", f"/run/wgmesh/{MESH}.json", check=False)
    links = json.loads(text)["links"].values() if text else ()
    return len(links) == sessions and all(link["state"] == "up" for link in links)


def _window(relay: Machine, pid: int) -> tuple[float, float]:
    """Return percent of a core that process *pid* used, and packets a second, over WINDOW seconds."""
    start, used, passed = time.monotonic(), _used(pid), _packets(relay)
    time.sleep(WINDOW)
    took = time.monotonic() - start
    return (_used(pid) - used) / took * 100, (_packets(relay) - passed) / took


def _used(pid: int) -> float:
    """Return the CPU seconds of the process and its ended children (proc(5): utime, stime, cutime, cstime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _packets(relay: Machine) -> int:
    folder = f"/sys/class/net/{MESH}/statistics"
    return sum(map(int, relay.run("cat", f"{folder}/rx_packets", f"{folder}/tx_packets").split()))


def _spread(metric: str, values: Sequence[float], unit: str, goal: str = "") -> list[Measure]:
    """Return median and 95th percentile."""
    worst = sorted(values)[max(0, round(0.95 * len(values)) - 1)]
    return [
        Measure(metric=f"{metric}, median", value=statistics.median(values), unit=unit, goal=goal, runs=len(values)),
        Measure(metric=f"{metric}, p95", value=worst, unit=unit, runs=len(values)),
    ]
