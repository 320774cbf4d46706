"""Datagrams lost during a change of a running mesh, and the duration of a rotation of all keys.

Two sites reach each other through two relays only. Their leaves send 100 datagrams a second each way. The same jobs are
done in the same network by wgmesh, by ``wg-quick down`` and ``up``, and by ``wg syncconf``. Both directions are counted
together, until the leaves reach each other again and the job has ended.

    WGMESH_BENCH_RUNS=1                fewer runs of each job than 5
    WGMESH_BENCH_SYSTEMS=wg-quick;…    only the systems of these names; the results of others stay as they are
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from bench import byhand, ours, twosites
from bench.byhand import EXTRA, ByHand, carried_by, on_port, rekeyed, without
from bench.rows import Measure
from bench.twosites import LEAVES, RELAYS
from tests.lab.exchange import Exchange, Flow
from tests.lab.lab import Lab
from tests.lab.lossless import lost_in
from tests.lab.mesh import Mesh, failures
from tests.lab.planned import status
from tests.lab.topology import Topology, host
from tests.lab.wait import wait_until

SYSTEMS = os.environ.get("WGMESH_BENCH_SYSTEMS", "")
PARTIAL = bool(SYSTEMS)
RATE = 100.0
AFTER = 2.0
"""Seconds of traffic before and after a job."""
LATEST = 180.0
"""Seconds in which a job of wgmesh must end."""
SIZES = (10, 20)
TALKERS = {10: 8, 20: 4}
"""Size of the mesh → leaves with traffic during a rotation of all keys, limited to what two cores can forward."""
TOPOLOGY = replace(
    twosites.TOPOLOGY,
    machines=(*twosites.TOPOLOGY.machines, host(EXTRA, "west", "10.1.1.22/24", "10.1.1.1")),
    minions=(*twosites.TOPOLOGY.minions, EXTRA),
)
Job = Callable[[], object]


class Changing(Protocol):
    """A system that forwards the leaves' traffic and can be changed while it does."""

    name: str

    def start(self, lab: Lab) -> None:
        """Start it in a lab whose underlay is up."""

    def ready(self) -> None:
        """Wait until all is up, so that the next job can start."""

    def addresses(self) -> dict[str, str]:
        """Return the leaves' overlay addresses."""

    def jobs(self) -> dict[str, Job]:
        """Return name → job. The jobs are done in this order, repeatedly. Each ends when nothing is left to do."""


class Hand(ByHand):
    """The jobs by hand."""

    def jobs(self) -> dict[str, Job]:
        """Each job undoes the run before it, where it cannot be done twice."""
        first, second = RELAYS
        turned = {first: second, second: first}
        ports = {byhand.PORT: byhand.PORT + 100, byhand.PORT + 100: byhand.PORT}
        return {
            "relay drained": lambda: self.do(carried_by(turned[self._sheet.carrier])),
            "key of a leaf rotated": lambda: self.do(rekeyed(LEAVES[0])),
            "key of a relay rotated": lambda: self.do(rekeyed(self._sheet.carrier)),
            "all keys rotated": lambda: self.do(rekeyed(*RELAYS, *LEAVES)),
            "node added": lambda: self.do(rekeyed(EXTRA)),
            "node removed": lambda: self.do(without(EXTRA)),
            "port changed": lambda: self.do(on_port(ports[self._sheet.port])),
        }


class Formula:
    """The jobs by wgmesh's commands, with the mesh of ``bench.ours``."""

    name = "wgmesh"

    def start(self, lab: Lab) -> None:
        """Start the mesh without the extra node, which joins by a job."""
        self._salt = lab.salt
        self._all = Mesh(lab=lab, name=ours.MESH, networks=(twosites.OVERLAY,), members=TOPOLOGY.minions)
        self._mesh = self._now = replace(self._all, members=twosites.NODES)
        lab.salt.set_policy(ours.POLICY)
        lab.salt.start(twosites.NODES)
        broken = failures(self._mesh.apply(), twosites.NODES)
        assert not broken, broken
        self._port = byhand.PORT
        self.ready()

    def ready(self) -> None:
        self._now.settle(deadline=LATEST)
        wait_until(lambda: not status(self._salt, ours.MESH).get("outages"), LATEST, "no outage to be left", every=1)

    def addresses(self) -> dict[str, str]:
        overlay = self._mesh.overlay()
        return {leaf: overlay[leaf][0] for leaf in LEAVES}

    def jobs(self) -> dict[str, Job]:
        return {
            "relay drained": self._drain,
            "key of a leaf rotated": lambda: rotate(self._mesh, LEAVES[0]),
            "key of a relay rotated": lambda: rotate(self._mesh, RELAYS[0]),
            "all keys rotated": lambda: rotate(self._mesh, "*"),
            "node added": self._add,
            "node removed": self._remove,
            "port changed": self._change_port,
        }

    def _drain(self) -> None:
        """Drain and undrain, for the next run. By hand there is nothing to undo."""
        relay = status(self._salt, ours.MESH)["nodes"][LEAVES[0]]["relays"][0]
        self._salt.salt_run("wgmesh.drain", relay, timeout=LATEST)
        self._mesh.settle(deadline=LATEST)
        self._salt.salt_run("wgmesh.undrain", relay, timeout=LATEST)
        self._mesh.settle(deadline=LATEST)

    def _add(self) -> None:
        self._salt.start_minion(EXTRA)
        self._salt.accept_keys([EXTRA])
        self._now = self._all
        self._now.settle(deadline=LATEST)

    def _remove(self) -> None:
        self._salt.kill([EXTRA])
        self._salt.delete_key(EXTRA)
        self._now = self._mesh
        self._now.settle(deadline=LATEST)

    def _change_port(self) -> None:
        self._port = byhand.PORT if self._port != byhand.PORT else byhand.PORT + 100
        wanted: dict[str, Any] = copy.deepcopy(ours.POLICY)
        wanted["wgmesh"][ours.MESH]["listen_port"] = self._port
        self._salt.set_policy(wanted)
        self._salt.salt_run("wgmesh.converge", timeout=LATEST)

        def all_there() -> bool:
            underlay = self._mesh.lab.underlay
            found = {underlay[n].run("wg", "show", ours.MESH, "listen-port").strip() for n in self._mesh.members}
            return found == {str(self._port)}

        wait_until(all_there, LATEST, "all to listen there", every=0.5)
        self._mesh.settle(deadline=LATEST)


def run() -> list[Measure]:
    """Return median and maximum of each job and system, then the duration of a rotation of all keys."""
    runs = int(os.environ.get("WGMESH_BENCH_RUNS", "5"))
    rows = []
    for system in systems():
        if not SYSTEMS or system.name in SYSTEMS.split(";"):
            goal = "== 0" if isinstance(system, Formula) else ""
            for job, lost in measure(system, runs).items():
                what = f"{job}: {system.name}"
                rows += [
                    Measure(metric=f"{what}, median", value=statistics.median(lost), unit="packets", runs=runs),
                    Measure(metric=f"{what}, most", value=max(lost), unit="packets", goal=goal, runs=runs),
                ]
    if not SYSTEMS or Formula.name in SYSTEMS.split(";"):
        rows += [row for size in SIZES for row in rotation(size, runs)]
    return rows


def systems() -> list[Changing]:
    """Return wgmesh, and the two ways by hand."""
    return [Formula(), Hand("wg syncconf", byhand.SYNC), Hand("wg-quick down, up", byhand.QUICK)]


def measure(system: Changing, runs: int) -> dict[str, list[int]]:
    """Return job → the number of datagrams that each of its runs lost."""
    with Lab(TOPOLOGY) as lab:
        twosites.build(lab)
        system.start(lab)
        found: dict[str, list[int]] = {name: [] for name in system.jobs()}
        for _ in range(runs):
            for name, job in system.jobs().items():
                system.ready()
                found[name].append(lost(lab, system, job))
                print(f"{system.name}: {name}: {found[name][-1]} lost", flush=True)
    return found


def lost(lab: Lab, system: Changing, job: Job) -> int:
    """Count the datagrams that were lost between the leaves, until these reach each other after the job."""
    addresses = system.addresses()
    flows = [Flow(source=a, target=b, address=addresses[b]) for a, b in (LEAVES, LEAVES[::-1])]
    with Exchange(lab.underlay, flows, rate=RATE) as exchange:
        time.sleep(AFTER)
        job()

        def flowing() -> bool:
            return all(twosites.reaches(lab, flow.source, flow.address) for flow in flows)

        wait_until(flowing, LATEST, "traffic to flow again", every=0.5)
        time.sleep(AFTER)
    return sum(one.lost for one in exchange.deliveries)


def rotate(mesh: Mesh, target: str) -> None:
    """Give the nodes new keys, until no node accepts the old ones."""
    underlay = mesh.lab.underlay

    def keys() -> dict[str, str]:
        return {n: underlay[n].run("wg", "show", mesh.name, "public-key").strip() for n in mesh.members}

    def known() -> set[str]:
        texts = (underlay[n].run("wg", "show", "all", "peers") for n in mesh.members)
        return {line.split()[-1] for text in texts for line in text.splitlines()} | set(keys().values())

    old = {key for node, key in keys().items() if target in (node, "*")}
    mesh.lab.salt.salt_run("wgmesh.rotate", target, timeout=2 * LATEST)
    wait_until(lambda: not old & known(), 2 * LATEST, "the old keys to be gone", every=2.0)
    mesh.settle(deadline=LATEST)


def rotation(size: int, runs: int) -> list[Measure]:
    """Return the seconds of a rotation of all keys, and the packets lost, in a mesh of two relays and their leaves."""
    took, gone = [], []
    with flat(size) as mesh:
        overlay = mesh.overlay()
        leaves = [node for node in mesh.members if node not in RELAYS][: TALKERS[size]]
        pairs = list(zip(leaves, [*leaves[1:], leaves[0]], strict=True))
        flows = [Flow(source=a, target=b, address=overlay[b][0]) for pair in pairs for a, b in (pair, pair[::-1])]
        for _ in range(runs):
            with Exchange(mesh.lab.underlay, flows, rate=RATE) as exchange:
                began = time.monotonic()
                rotate(mesh, "*")
                took.append(time.monotonic() - began)
            gone.append(sum(one.lost for one in exchange.deliveries))
            line = f"{size} nodes: all keys rotated in {took[-1]:.0f} s, {gone[-1]} lost"
            print(line, *(lost_in(one) for one in exchange.deliveries if one.lost), sep="\n  ", flush=True)
    what = f"all keys of {size} nodes rotated"
    return [
        Measure(metric=f"{what}, median", value=statistics.median(took), unit="s", runs=runs),
        Measure(metric=f"{what}, most", value=max(gone), unit="packets", goal="== 0", runs=runs),
    ]


@contextmanager
def flat(size: int) -> Iterator[Mesh]:
    """Yield a hub of two relays and *size* - 2 leaves on one segment."""
    names = (*RELAYS, *(f"n{i:02}" for i in range(1, size - 1)))
    machines = tuple(host(name, "lan", f"192.0.2.{number}/24") for number, name in enumerate(("master", *names), 10))
    topology = Topology(master="master", minions=names, machines=machines)
    rules: Mapping[str, Any] = {
        **{name: {"role": "relay", "endpoint": topology.machine(name).address} for name in RELAYS},
        "n*": {},
    }
    raw = {"network": twosites.OVERLAY, "topology": "hub", "nodes": dict(rules)}
    with Lab(topology, master_options={"worker_threads": 5}) as lab:
        lab.underlay.build()
        lab.salt.set_policy({"wgmesh": {ours.MESH: raw}})
        lab.salt.start()
        mesh = Mesh(lab=lab, name=ours.MESH, networks=(twosites.OVERLAY,), members=names)
        broken = failures(mesh.apply(), names)
        assert not broken, broken
        mesh.settle(deadline=LATEST)
        yield mesh
