"""Time until the master has reacted, on the demo's fleet: a dead relay, a new node, a deleted key, a storm of events.

A time is taken when an event arrives on the master's bus, or when a node itself sees the result. All machines share one
clock. ``test.ping`` is called from a program that already runs, as a master's own jobs are.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rows import Measure
from tests.lab import faults
from tests.lab.demo import run as demo
from tests.lab.demo.topology import DEMO
from tests.lab.disruption import whole
from tests.lab.lab import Lab
from tests.lab.mesh import Mesh, failures
from tests.lab.saltconf import NO_SCHEDULE
from tests.lab.wait import wait_until

RUNS = 5
PINGS = 10
EVENTS, STORM = 1_000, 5.0
DEAD, NEW = "relay-fra2", "app2"
BUS = Path(__file__).with_name("bus.py")
REACHED = """
for target in {targets}; do
    (until ping -n -q -c 1 -W 0.5 $target > /dev/null 2>&1; do sleep 0.2; done) &
done
wait
date +%s.%N
"""
GONE = "while wg show all peers | grep -qF '{key}'; do sleep 0.1; done; date +%s.%N"
FRESH = "rm -rf /etc/wireguard/* /var/lib/wgmesh /run/wgmesh {salt}/minion.d {salt}/cache"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bus:
    """The events of the master, read from a file."""

    path: Path

    def since(self, when: float, wanted: Callable[[Event], object]) -> list[Event]:
        """Return the *wanted* events that arrived after *when*, in their order."""
        lines = self.path.read_text().splitlines(keepends=True)
        events = (json.loads(line) for line in lines if line.endswith("\n"))
        return [event for event in events if event["at"] >= when and wanted(event)]

    def first(self, when: float, wanted: Callable[[Event], object], what: str, deadline: float = 60) -> Event:
        """Return the first one, as soon as it has arrived."""
        return wait_until(lambda: self.since(when, wanted), deadline, what)[0]


def run() -> list[Measure]:
    """Run all. The storm has a fleet of its own, since its remaining events would delay the other measurements."""
    with fleet() as (mesh, bus):
        rows = [*deaths(mesh, bus), *changes(mesh, bus)]
    with fleet() as (mesh, _):
        return [*rows, *storm(mesh.lab)]


@contextmanager
def fleet() -> Iterator[tuple[Mesh, Bus]]:
    """Yield the demo's mesh. Its master learns of changes by events alone, without a schedule."""
    with Lab(DEMO, master_options=NO_SCHEDULE) as lab:
        lab.underlay.build()
        lab.salt.set_policy(demo.policy())
        lab.salt.start()
        mesh = Mesh(lab=lab, name=demo.MESH, networks=tuple(demo.networks(demo.policy())), members=DEMO.minions)
        assert failures(mesh.apply(), DEMO.minions) == []
        mesh.settle()
        with _listening(lab) as bus:
            yield mesh, bus


def deaths(mesh: Mesh, bus: Bus) -> list[Measure]:
    """Return the times from a relay's death to the event, and from the event to the plan on the last affected node."""
    found = [death(mesh, bus) for _ in range(RUNS)]
    names = sorted({name for _, names in found for name in names})
    pings = json.loads(_salt_program(mesh.lab, "ping", ",".join(names), str(PINGS + 1)))
    ping = statistics.median(pings)
    steps = {step: [times[step] for times, _ in found] for step in found[0][0]}
    ratios = [taken / ping for taken in steps["from the event to the plan applied"]]
    rows = [row for step, taken in steps.items() for row in _spread(step, taken, "s")]
    return [
        *rows,
        *_spread(f"test.ping to the same {len(names)} nodes", pings, "s"),
        *_spread("plan applied after the event / test.ping", ratios, "x", "<= 4"),
    ]


def death(mesh: Mesh, bus: Bus) -> tuple[dict[str, float], set[str]]:
    """Return the seconds of each step, and the nodes that got another view. Afterwards all is as before."""
    salt = mesh.lab.salt
    began = time.time()
    with faults.unplugged(mesh.lab.underlay, DEAD):
        event_at = bus.first(began, lambda e: e["tag"].endswith("/wgmesh/link-down"), "the beacon's event")["at"]
        done = bus.first(
            began, lambda e: e["tag"].endswith("/converged") and DEAD in e.get("down", ()), "a plan without the relay"
        )
    returns = bus.since(began, lambda e: "/ret/" in e["tag"] and e["at"] <= done["at"])
    asked = [e["at"] for e in bus.since(began, lambda e: e["tag"].endswith("/new") and e.get("fun") == "wgmesh.links")]
    answered = max(e["at"] for e in returns if e["fun"] == "wgmesh.links")
    pushed = bus.first(began, lambda e: e["tag"].endswith("/new") and e.get("fun") == "wgmesh.apply", "the push")["at"]
    applied = max(e["at"] for e in returns if e["fun"] == "wgmesh.apply" and e["id"] in done["applied"])
    salt.await_minions([DEAD])
    # The next death must start from the same state as the first.
    whole(mesh)
    times = {
        "from a relay's death to the event": event_at - began,
        "from the event to the plan applied": applied - event_at,
        "  of it until the first question": asked[0] - event_at,
        "  of it until the last answer": answered - asked[0],
        "  of it until the push": pushed - answered,
        "  of it until the last return": applied - pushed,
    }
    print(
        {k: round(v, 3) for k, v in times.items()}, [round(a - event_at, 3) for a in asked], done["applied"], flush=True
    )
    return times, set(done["applied"])


def changes(mesh: Mesh, bus: Bus) -> list[Measure]:
    """Delete a key and enrol its node as a new one, repeatedly."""
    took: dict[str, list[float]] = {}
    for _ in range(RUNS):
        for step, seconds in (revocation(mesh, bus) | enrolment(mesh, bus)).items():
            took.setdefault(step, []).append(seconds)
    goals = {"from salt-key -d to the last peer gone": "<= 5", "from a minion's start to all pings": "<= 5"}
    return [row for step, taken in took.items() for row in _spread(step, taken, "s", goals.get(step, ""))]


def revocation(mesh: Mesh, bus: Bus) -> dict[str, float]:
    """Return the times from the command, and from its event, until the last node has removed the peer."""
    underlay = mesh.lab.underlay
    key = underlay[NEW].run("wg", "show", mesh.name, "public-key").strip()
    others = [n for n in mesh.members if n != NEW and key in underlay[n].run("wg", "show", "all", "peers")]
    waiting = [underlay[n].spawn("sh", "-c", GONE.format(key=key)) for n in others]
    began = time.time()
    mesh.lab.salt.delete_key(NEW)
    gone = max(_ended(waiting))
    event = bus.first(began, lambda e: e["tag"] == "salt/key" and e.get("act") == "delete", "the key's event")["at"]
    took = {"from salt-key -d to the last peer gone": gone - began, "  of it since the key's event": gone - event}
    print(took, flush=True)
    return took


def enrolment(mesh: Mesh, bus: Bus) -> dict[str, float]:
    """Return the times from a new node's start event to the first answers, to it and from it."""
    salt, underlay = mesh.lab.salt, mesh.lab.underlay
    overlay = mesh.overlay()
    salt.kill([NEW])
    underlay.lose_power(NEW)
    underlay[NEW].run("sh", "-c", FRESH.format(salt=underlay[NEW].folder / "salt"))
    salt.start_minion(NEW)
    wait_until(lambda: NEW in salt.pending(), 60, "the key to arrive")
    own = [addresses[0] for name, addresses in sorted(overlay.items()) if name != NEW]
    targets = {name: own if name == NEW else overlay[NEW][:1] for name in mesh.members}
    waiting = [
        underlay[name].spawn("sh", "-c", REACHED.format(targets=" ".join(wanted))) for name, wanted in targets.items()
    ]
    began = time.time()
    salt.accept_keys([NEW])
    started = bus.first(began, lambda e: e["tag"] == f"salt/minion/{NEW}/start", "the minion's start")["at"]
    reached = max(_ended(waiting))
    facts = bus.first(began, lambda e: e["tag"] == f"wgmesh/{NEW}/facts", "its facts")["at"]
    enrol = bus.first(began, lambda e: e["tag"].endswith("/new") and e.get("fun") == "wgmesh.enrol", "the job")["at"]
    pushed = bus.first(facts, lambda e: e["tag"].endswith("/new") and e.get("fun") == "wgmesh.apply", "the push")["at"]
    returned = bus.since(pushed, lambda e: "/ret/" in e["tag"] and e.get("fun") == "wgmesh.apply")[-1]["at"]
    took = {
        "from a minion's start to all pings": reached - started,
        "  of it until it is told to enrol": enrol - started,
        "  of it until its facts are known": facts - enrol,
        "  of it until the push to it": pushed - facts,
        "  of it until the last return": returned - pushed,
        "  of it until the last ping": reached - returned,
    }
    print({k: round(v, 3) for k, v in took.items()}, flush=True)
    mesh.settle()
    return took


def storm(lab: Lab) -> list[Measure]:
    """Count the rounds that a thousand events cause, and the runs of the planner in them.

    The lock file of the run queue shows the rounds. Each run of the planner writes a file of its own. A round in which
    nothing changed does not plan."""
    gate = lab.salt.master.folder / "salt" / "cache" / "wgmesh"
    rounds, runs = [], []
    for _ in range(RUNS):
        (gate / "converge.lock").write_text("")
        began = time.time()
        begun: set[float] = set()
        planned: set[float] = set()
        storm = lab.salt.master.spawn(*_words(lab, "storm", str(EVENTS), str(STORM)))
        last = began

        def quiet(begun: set[float] = begun, planned: set[float] = planned, storm: Any = storm) -> bool:
            nonlocal last
            text = (gate / "converge.lock").read_text()
            new = set(json.loads(text)["begun"]) - begun if text.endswith("}") else set()
            begun |= new
            planned.add((gate / "runs" / "last.p").stat().st_mtime)
            asked = any((gate / "requests").iterdir())
            last = time.time() if new or asked or storm.poll() is None else last
            return time.time() - last > 8

        wait_until(quiet, 120, "the runs to end")
        rounds.append(sum(at >= began for at in begun))
        runs.append(sum(at >= began for at in planned))
        print(rounds[-1], runs[-1], flush=True)
    what = f"for {EVENTS} events in {STORM:g} s"
    return [*_spread(f"runs of the planner {what}", runs, "runs", "<= 5"), *_spread(f"rounds {what}", rounds, "rounds")]


def _ended(waiting: Sequence[subprocess.Popen[str]]) -> Iterator[float]:
    """Return when each of the programs saw what it waited for."""
    for process in waiting:
        yield float(process.communicate(timeout=90)[0])


@contextmanager
def _listening(lab: Lab) -> Iterator[Bus]:
    listener = lab.salt.master.spawn(*_words(lab, "listen"), log="bus.log")
    path = lab.salt.master.folder / "bus.log"
    wait_until(lambda: "listening" in path.read_text(), 30, "the listener")
    yield Bus(path)
    assert listener.poll() is None


def _words(lab: Lab, *words: str) -> tuple[str, ...]:
    return (sys.executable, str(BUS), words[0], str(lab.salt.master.folder / "salt"), *words[1:])


def _salt_program(lab: Lab, *words: str) -> str:
    return lab.salt.master.run(*_words(lab, *words))


def _spread(metric: str, values: Sequence[float], unit: str, goal: str = "") -> list[Measure]:
    """Return median and 95th percentile."""
    worst = sorted(values)[max(0, round(0.95 * len(values)) - 1)]
    return [
        Measure(metric=f"{metric}, median", value=statistics.median(values), unit=unit, goal=goal, runs=len(values)),
        Measure(metric=f"{metric}, p95", value=worst, unit=unit, runs=len(values)),
    ]
