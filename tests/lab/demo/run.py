"""The demo: a fleet without a mesh, one command, and measurements that prove the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from ..expectation import LanHost, faults, targets
from ..lab import Lab
from ..mesh import failures
from ..narrator import Narrator, Step
from ..overlay import Trip, addresses_in, trips
from ..planned import await_links, await_settled, paths
from ..table import table
from ..wait import TimedOut, wait_until
from .topology import DEMO, GATEWAY, LAN_HOST

POLICY = Path(__file__).with_name("policy.yaml")
PRINTER = LanHost(name=LAN_HOST, gateway=GATEWAY, address="192.168.50.20")
MESH = "wg0"
STEPS = 8


def policy() -> dict[str, Any]:
    """Return the demo's policy as in the pillar."""
    return dict(yaml.safe_load(POLICY.read_text()))


def networks(of: Mapping[str, Any]) -> list[str]:
    """Return the overlay networks of a policy's demo mesh."""
    return list(of["wgmesh"][MESH]["network"])


def demo(lab: Lab, narrator: Narrator, *, only_underlay: bool = False) -> bool:
    """Run the demo and print its progress. Return whether every pair reaches each other by the planned path."""
    build(lab, narrator)
    if only_underlay:
        return True
    start_salt(lab, narrator)
    apply(lab, narrator)
    measured = measure(lab, narrator)
    found = compare(lab, narrator, measured)
    narrator.say()
    for line in table(measured):
        narrator.say(line)
    narrator.say()
    for fault in found:
        narrator.say(narrator.bad(f"✗ {fault}"))
    narrator.say(narrator.dim(f"One path explained: {why(lab, 'laptop', 'app1')}"))
    verdict = f"{len(measured) - len(found)} of {len(measured)} trips arrive by the planned path"
    which = f"both directions of each pair, IPv4 and IPv6; {narrator.elapsed:.0f} s in all"
    narrator.say((narrator.bad if found else narrator.good)(f"{verdict} ({which})"))
    return bool(measured) and not found


def build(lab: Lab, narrator: Narrator) -> None:
    """Build the underlay."""
    with narrator.step("build the network: two sites, a home, an office") as step:
        lab.underlay.build()
        step.progress(f"{len(DEMO.machines)} machines on {len(DEMO.segments)} segments")


def start_salt(lab: Lab, narrator: Narrator) -> None:
    """Start the master with the demo's policy, and wait until all minions answer."""
    fleet = lab.salt
    with narrator.step("start the salt-master and the salt-minions") as step:
        fleet.set_policy(policy())
        for name in fleet.minions:
            fleet.start_minion(name)
        fleet.start_master()
        step.progress(f"1 master, {len(fleet.minions)} minions")
    with narrator.step("accept their keys") as step:

        def all_pending() -> bool:
            step.progress(f"{len(fleet.pending())} of {len(fleet.minions)}")
            return fleet.pending() == set(fleet.minions)

        wait_until(all_pending, 90, "all minions' keys to arrive")
        fleet.accept_keys()
    with narrator.step("wait for the minions to answer") as step:
        fleet.await_minions()
        step.progress(f"{len(fleet.minions)} of {len(fleet.minions)}")


def apply(lab: Lab, narrator: Narrator) -> None:
    """Run ``state.apply wgmesh`` on every minion. AssertionError if one fails."""
    nets = networks(policy())
    with narrator.step("salt '*' state.apply wgmesh") as step:
        pool = ThreadPoolExecutor(1)
        running = pool.submit(lab.salt.salt, "*", "state.apply", "wgmesh", timeout=90)
        pool.shutdown(wait=False)

        def over() -> bool:
            joined = sum(map(bool, addresses_in(lab.underlay, lab.salt.minions, nets).values()))
            step.progress(f"{joined} of {len(lab.salt.minions)} nodes are in the mesh")
            return running.done()

        wait_until(over, 240, "state.apply to return", every=0.5)
        failed = failures(running.result(), lab.salt.minions)
        if failed:
            raise AssertionError("state.apply wgmesh failed:\n  " + "\n  ".join(failed))


def measure(lab: Lab, narrator: Narrator) -> list[Trip]:
    """Return the measured trips of all pairs, when all of them arrive or the time is over."""
    nets = networks(policy())
    with narrator.step("wait for the mesh to come up on every node") as step:
        overlay = _await_addresses(lab, step, nets)
        await_settled(lab.salt, MESH, set(lab.salt.minions))
        await_links(lab.salt, MESH, set(lab.salt.minions))
    wanted = targets(overlay, PRINTER)
    with narrator.step("measure every pair: both directions, IPv4 and IPv6, round trip and path") as step:
        measured: list[Trip] = []

        def all_arrive() -> bool:
            measured[:] = trips(lab.underlay, wanted)
            arrived = sum(t.arrived and "?" not in t.path for t in measured)
            step.progress(f"{arrived} of {len(measured)} arrive")
            return arrived == len(measured)

        try:
            wait_until(all_arrive, 15, "all pairs to reach each other")
        except TimedOut:
            narrator.say()
    return measured


def compare(lab: Lab, narrator: Narrator, measured: list[Trip]) -> list[str]:
    """Return the differences from the plan."""
    with narrator.step("compare the paths with the plan (those that salt-run wgmesh.paths prints)") as step:
        found = faults(measured, paths(lab.salt, MESH), PRINTER)
        step.progress(f"{len(measured) - len(found)} of {len(measured)} as planned")
    return found


def why(lab: Lab, source: str, target: str) -> str:
    """Return the master's explanation of a path."""
    found = lab.salt.salt_run("wgmesh.explain", source, target, mesh=MESH)
    return " ".join([f"{' → '.join(found['path'])}.", *found["why"]])


def _await_addresses(lab: Lab, step: Step, nets: list[str]) -> dict[str, tuple[str, ...]]:
    def all_have() -> dict[str, tuple[str, ...]]:
        found = addresses_in(lab.underlay, lab.salt.minions, nets)
        ready = sum(len(a) == len(nets) for a in found.values())
        step.progress(f"{ready} of {len(found)}")
        return found if ready == len(found) else {}

    return wait_until(all_have, 60, "every node to have its overlay addresses", every=0.5)
