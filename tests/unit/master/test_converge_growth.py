"""No run of converge grows faster than the number of nodes: four times the nodes, four times the calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.proof.prove import prove
from tests.unit.harness.fake_master import FakeMaster, link_reports, mine
from tests.unit.harness.operations import LINEAR, growth

RELAYS = ("r1", "r2", "r3")


class Fleet(FakeMaster):
    """Three relays, and leaves behind NAT that report their links."""

    def __init__(self, leaves: int) -> None:
        super().__init__()
        nodes = {r: {"role": "relay", "endpoint": f"203.0.113.{i}"} for i, r in enumerate(RELAYS, 1)}
        leaf_names = [f"leaf{i}" for i in range(leaves)]
        self.policy = {"wg0": {"network": "10.0.0.0/16", "nodes": {**nodes, "leaf*": {"nat": True}}}}
        self.mine = {node: mine(node) for node in (*RELAYS, *leaf_names)}
        self.lost: set[str] = set()
        """Relays that no node hears."""

    def links(self, nodes: list[str]) -> dict[str, object]:
        """The reports of *nodes*, except the lost ones."""
        return {node: self._report(node) for node in nodes if node not in self.lost}

    def _report(self, node: str) -> dict[str, object]:
        interfaces = self.ledger.assignments(node)["wg0"]["interfaces"]
        peers = [(p["node"], i["name"]) for i in interfaces for p in i["peers"]]
        states = {n: (name, LinkState.DOWN if n in self.lost else LinkState.UP) for n, name in peers}
        return link_reports(states)


def first_run(leaves: int) -> Callable[[], object]:
    """Publish and push a new mesh."""
    return Fleet(leaves).run


def settled(leaves: int) -> Fleet:
    """Return a fleet that has applied its plan."""
    fleet = Fleet(leaves)
    fleet.run()
    fleet.now += 60.0
    return fleet


def idle_run(leaves: int) -> Callable[[], object]:
    """Nothing has changed."""
    return settled(leaves).run


def moved_relay(leaves: int) -> Callable[[], object]:
    """A relay gets another endpoint, which all its leaves learn."""
    fleet = settled(leaves)
    fleet.policy["wg0"]["nodes"]["r1"]["endpoint"] = "203.0.113.99"
    return fleet.run


def lost_relay(leaves: int) -> Callable[[], object]:
    """A relay goes down, and its leaves get another one."""
    fleet = settled(leaves)
    fleet.lost.add("r1")
    return lambda: fleet.run(suspects="r1", hints="leaf1")


def unanswered_push(leaves: int) -> Callable[[], object]:
    """No leaf answers the push."""
    fleet = Fleet(leaves)
    fleet.off = {node for node in fleet.mine if node not in RELAYS}
    fleet.run()
    return fleet.run


def rotation(leaves: int) -> Callable[[], object]:
    """All nodes are to get other keys."""
    fleet = settled(leaves)
    return lambda: fleet.run(rotate=set(fleet.mine))


def activation(leaves: int) -> Callable[[], object]:
    """All nodes have a next key, which their neighbours have acknowledged."""
    fleet = settled(leaves)
    fleet.run(rotate=set(fleet.mine))
    for node, facts in fleet.mine.items():
        fleet.mine[node] = {**facts, "next_key": mine(f"next of {node}")["public_key"]}
    fleet.run()
    fleet.now += 60.0
    return fleet.run


def claimed_key(leaves: int) -> Callable[[], object]:
    """All leaves publish the key of one of them."""
    fleet = settled(leaves)
    claimed = fleet.mine["leaf0"]["public_key"]
    fleet.mine |= {node: {**fleet.mine[node], "public_key": claimed} for node in fleet.mine if node not in RELAYS}
    return fleet.run


def lost_leaves(leaves: int) -> Callable[[], object]:
    """All leaves go down, and an event suspects each of them."""
    fleet = settled(leaves)
    fleet.lost = {node for node in fleet.mine if node not in RELAYS}
    return lambda: fleet.run(suspects=fleet.lost, hints="r1")


def other_interface(leaves: int) -> Callable[[], object]:
    """The interfaces of all nodes get other names."""
    fleet = settled(leaves)
    fleet.policy["wg0"]["interface"] = "mesh"
    return fleet.run


def lost_role(leaves: int) -> Callable[[], object]:
    """A relay becomes a leaf."""
    fleet = settled(leaves)
    fleet.policy["wg0"]["nodes"]["r3"] = {"nat": True}
    return fleet.run


def proof(leaves: int) -> Callable[[], object]:
    """Prove the published plan."""
    plan = settled(leaves).plan()
    return lambda: prove(plan)


RUNS = {
    "first run": first_run,
    "idle run": idle_run,
    "moved relay": moved_relay,
    "lost relay": lost_relay,
    "unanswered push": unanswered_push,
    "rotation": rotation,
    "activation": activation,
    "claimed key": claimed_key,
    "lost leaves": lost_leaves,
    "other interface": other_interface,
    "lost role": lost_role,
    "proof": proof,
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_run_grows_linearly(run):
    """Its calls are at most LINEAR times as many for four times the leaves."""
    assert growth(run, 50) < LINEAR
