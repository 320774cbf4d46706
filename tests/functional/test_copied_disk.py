"""A node whose disk was copied: the advice that the master gives is a command that works."""

import json
import shlex

import pytest

from saltext_wgmesh.core.inputs.fact_checks import cross_check
from saltext_wgmesh.core.inputs.facts import facts_from_dict
from saltext_wgmesh.minion.state import key_holder, store
from saltext_wgmesh.minion.system.host import Host
from tests.nodeviews import leaf
from tests.unit.harness.mine_facts import gateway_mesh


def advice(facts):
    """Return the command that the master names for the node1 that publishes *facts*, which node n0 published first."""
    raw = {"n0": facts, "n1": facts}
    found = cross_check(gateway_mesh(), {node: facts_from_dict(node, own) for node, own in raw.items()})
    words = shlex.split(found[1].remedy.partition(": ")[2])
    assert words[:2] == ["salt", "n1"]
    return words[2]


@pytest.fixture
def copied(modules, states, offer):
    """Have node1 run a mesh with a key that another node has too. The value is the key."""
    assert states.wgmesh.key_present("key").result is True
    offer(wg0=leaf())
    assert "error" not in modules.wgmesh.apply()["wg0"]
    yield modules.wgmesh.facts()["public_key"]
    # The mine outlives the test's machine.
    modules.mine.flush()


def test_advice_gives_copy_its_own_key(modules, outside, offer, copied):
    """After the command no interface runs the copied key, no fact has it, and a second node may have it."""
    assert copied in outside("wg", "show", "all", "public-key")
    facts = modules.wgmesh.facts()
    offer(wg0={"reason": "its public key is also that of n0", "digest": "0"})
    modules[advice(facts)]()
    after = modules.wgmesh.facts()
    assert after["public_key"] != copied
    assert "next_key" not in after
    assert copied not in outside("wg", "show", "all", "public-key")
    assert store.meshes(Host()) == ()
    assert modules.mine.get("node1", "wgmesh.facts")["node1"]["public_key"] == after["public_key"]


def test_member_with_copied_key_rejoins(modules, outside, copied):
    """A node that has a view runs it with its new key when the command returns."""
    assert "error" not in modules.wgmesh.replace_key()["wg0"]
    assert modules.wgmesh.facts()["public_key"] in outside("wg", "show", "all", "public-key")
    assert copied not in outside("wg", "show", "all", "public-key")


def test_second_minion_leaves_mesh_alone(modules, states, outside, copied, tmp_path):
    """Another minion of the host is refused by each function that reads facts or changes the node, and told why."""
    (tmp_path / "minion.pem").touch()
    key_holder.holder_file(Host()).write_text(json.dumps({"id": "first", "pki_dir": str(tmp_path)}))
    for call in (
        lambda: states.wgmesh.absent("wg0", key=True),
        lambda: states.wgmesh.uninstalled("all", key=True),
        lambda: states.wgmesh.joined("joined"),
        lambda: states.wgmesh.key_present("key"),
        lambda: states.wgmesh.facts_published("facts"),
    ):
        ret = call()
        assert ret.result is False
        assert "belongs to its minion first" in ret.comment
    for function in ("facts", "apply", "renew_key", "replace_key"):
        with pytest.raises(Exception, match="belongs to its minion first"):
            modules[f"wgmesh.{function}"]()
    assert copied in outside("wg", "show", "all", "public-key")
