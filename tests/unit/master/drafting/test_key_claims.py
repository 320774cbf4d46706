"""A node that publishes the key of another costs that node nothing, over runs, meshes and held losses."""

from __future__ import annotations

import pytest

from tests.unit.harness.fake_master import FakeMaster, mine


@pytest.fixture
def master() -> FakeMaster:
    """A master whose mesh has all nodes of the mine, and where r1, a and b have joined."""
    found = FakeMaster()
    found.policy["wg0"]["nodes"] = {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "*": {}}
    found.run()
    return found


def key(node: str) -> str:
    return str(mine(node)["public_key"])


@pytest.mark.parametrize("field", ["public_key", "next_key"])
def test_new_address_of_owner_is_used(master: FakeMaster, field: str) -> None:
    """A claim on the key of a member, by a member or a new node, keeps none of the owner's facts back."""
    master.mine["a"] = mine("a", underlay=["198.51.100.9"])
    for thief in ("b", "new"):
        master.mine[thief] = mine(thief, **{field: key("a")})
    report = master.run()
    facts = master.ledger.head("wg0").facts
    assert facts["a"].underlay == ("198.51.100.9",)
    assert facts["b"].keys == (key("b"),)
    assert {line.partition(":")[0] for line in report.rejected} == {"b", "new"}
    assert {"r1", "a", "b"} <= master.members()


def test_next_key_of_owner_is_used(master: FakeMaster) -> None:
    """A rotation goes on, although another node publishes the next key that the owner published first."""
    following = key("another")
    master.mine["a"] = mine("a", next_key=following)
    master.run()
    master.mine["b"] = mine("b", next_key=following)
    master.mine["new"] = mine("new", public_key=following)
    master.run()
    facts = master.ledger.head("wg0").facts
    assert facts["a"].keys == (key("a"), following)
    assert facts["b"].keys == (key("b"),)
    assert "new" not in master.members()
    master.mine["a"] = mine("a", public_key=following)
    master.run()
    assert master.ledger.head("wg0").facts["a"].keys == (following,)


def test_owner_is_known_in_new_mesh(master: FakeMaster) -> None:
    """In a mesh that was never published, the records of other meshes say to which node a key belongs."""
    master.policy["wg1"] = {**master.policy["wg0"], "network": "10.1.0.0/16", "listen_port": 53000}
    master.mine["new"] = mine("new", public_key=key("a"))
    master.run_all()
    assert master.members("wg1") == {"r1", "a", "b"}


def test_key_of_node_outside_is_kept(master: FakeMaster) -> None:
    """A node that has no place yet keeps its key: no member can take it before the policy has a place for it."""
    master.policy["wg0"]["nodes"] = {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "a": {}, "b": {}}
    master.mine["later"] = mine("later")
    master.run()
    master.mine["b"] = mine("b", public_key=key("later"))
    master.run()
    master.policy["wg0"]["nodes"]["later"] = {}
    master.run()
    assert master.members() == {"r1", "a", "b", "later"}
    assert master.ledger.head("wg0").facts["b"].keys == (key("b"),)


def test_key_of_held_node_is_kept(master: FakeMaster) -> None:
    """A claim on the key of a node whose removal is held takes no plan down and gives nothing away."""
    for node in ("c", "d"):
        master.mine[node] = mine(node)
    master.run()
    master.deleted = {"c", "d"}
    master.mine["new"] = mine("new", public_key=key("c"))
    report = master.run()
    assert {"c", "d"} <= master.members()
    assert "new" not in master.members()
    assert any(line.startswith("new: its public key is also that of c") for line in report.rejected)
