"""A mesh that the policy has no more, a node that leaves, and both back again, on a real master."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import MINION, POLICY, write_policy

pytestmark = pytest.mark.root
ABSENT = {"wgmesh": {"wg0": "absent"}}


@pytest.fixture(scope="module", autouse=True)
def in_the_mesh(salt, minion, pillar_folder):
    """The node has applied the formula."""
    write_policy(pillar_folder, POLICY)
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0


def traces(minion):
    """What of ours is on the node: devices, files, and the words of the minion's own configuration."""
    devices = subprocess.run(["wg", "show", "interfaces"], capture_output=True, text=True, check=True).stdout.split()
    folders = [Path(p) for p in ("/etc/wireguard", "/var/lib/wgmesh", "/run/wgmesh")]
    found = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    configuration = Path(minion.config["conf_file"]).parent / "minion.d"
    found += [str(path) for path in configuration.glob("*.conf") if "wgmesh" in path.read_text()]
    return sorted([*devices, *found])


def changes(result):
    """State → its changes, of those that have some, or in test mode would."""
    assert all(value["result"] in (True, None) for value in result.data.values()), result.data
    return {
        value["__id__"]: value["changes"] for value in result.data.values() if value["changes"] or not value["result"]
    }


def test_a_mesh_out_of_the_policy_is_held_and_goes_when_it_is_confirmed(salt_run, pillar_folder, minion):
    """The exit status is 1 while it is held; a digest of something else is an error; the device goes with the push."""
    write_policy(pillar_folder, ABSENT)
    result = salt_run.run("wgmesh.converge")
    assert result.returncode == 1
    held = result.data["wg0"]["held"]
    assert held["nodes"] == [MINION]
    assert "wg0" in traces(minion)
    refused = salt_run.run("wgmesh.converge", "confirm=abc")
    assert refused.returncode == 1
    assert f"confirm={held['digest']}" in refused.stdout
    assert "Traceback" not in refused.stdout
    done = salt_run.run("wgmesh.converge", f"confirm={held['digest']}")
    assert (done.returncode, done.data["wg0"]["applied"]) == (0, [MINION])
    assert "wg0" not in traces(minion)
    assert salt_run.run("wgmesh.status").data["wg0"]["retired"] is True


def test_what_was_held_is_left_entirely_by_one_state(salt, minion):
    """In test mode it says so and changes nothing; then the watcher, the beacon and all files are gone, but the key."""
    before = traces(minion)
    told = changes(salt.run("state.apply", "wgmesh.absent", "test=True", minion_tgt=MINION))
    assert set(told) == {"wgmesh-beacon-absent", "wgmesh-engine-absent", "wgmesh-departed"}
    assert traces(minion) == before
    done = changes(salt.run("state.apply", "wgmesh.absent", minion_tgt=MINION))
    assert set(done) == set(told)
    assert traces(minion) == ["/etc/wireguard/wgmesh.key"]
    assert changes(salt.run("state.apply", "wgmesh.absent", minion_tgt=MINION)) == {}


def test_the_formula_brings_all_of_it_back_at_the_same_address(salt, salt_run, minion, pillar_folder):
    """As on a new node, in one command."""
    write_policy(pillar_folder, POLICY)
    salt_run.run("wgmesh.converge")
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0
    shown = json.loads(subprocess.run(["ip", "-json", "addr", "show", "wg0"], capture_output=True, check=True).stdout)
    assert "10.100.0.7" in {entry["local"] for entry in shown[0]["addr_info"]}
    assert changes(salt.run("state.apply", "wgmesh", minion_tgt=MINION)) == {}
    assert "/run/wgmesh/watch.pid" in traces(minion)


def test_a_node_leaves_with_its_key_if_that_is_asked_for(salt, minion):
    """The mesh and the key are named in the pillar of the one run."""
    pillar = json.dumps({"wgmesh_absent": {"meshes": "wg0", "key": True}})
    done = changes(salt.run("state.apply", "wgmesh.absent", f"pillar={pillar}", minion_tgt=MINION))
    assert done["wgmesh-wg0-absent"]["key"] == {"old": "/etc/wireguard/wgmesh.key", "new": None}
    assert traces(minion) == []


def test_a_rollback_names_the_generations_there_are(salt_run):
    """An unknown one is an error without a traceback, exit status 1."""
    result = salt_run.run("wgmesh.rollback", "generation=999")
    assert result.returncode == 1
    assert "generation 999 is not in the ledger; those are: 1" in result.stdout
    assert "Traceback" not in result.stdout
