"""A mesh that is removed from the policy, a node that leaves, and the return of both, on a real master."""

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
    """Apply the formula on the node."""
    write_policy(pillar_folder, POLICY)
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0


def traces(minion):
    """Return everything of wgmesh on the node: devices, files, and files of the minion's configuration."""
    devices = subprocess.run(["wg", "show", "interfaces"], capture_output=True, text=True, check=True).stdout.split()
    folders = [Path(p) for p in ("/etc/wireguard", "/var/lib/wgmesh", "/run/wgmesh")]
    found = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    configuration = Path(minion.config["conf_file"]).parent / "minion.d"
    found += [str(path) for path in configuration.glob("*.conf") if "wgmesh" in path.read_text()]
    return sorted([*devices, *found])


def changes(result):
    """Return state → its changes, for states with changes, or that would have some in test mode."""
    assert all(value["result"] in (True, None) for value in result.data.values()), result.data
    return {
        value["__id__"]: value["changes"] for value in result.data.values() if value["changes"] or not value["result"]
    }


def test_removed_mesh_is_held_until_confirmed(salt_run, pillar_folder, minion):
    """The removal is held, with exit status 1, until its digest is confirmed. Another digest is an error."""
    write_policy(pillar_folder, ABSENT)
    result = salt_run.run("wgmesh.converge")
    assert result.returncode == 1
    held = result.data["wg0"]["held_loss"]
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


def test_absent_state_removes_all_traces(salt, minion):
    """The state removes the watcher, the beacon and all files but the key. Test mode reports it and changes nothing."""
    before = traces(minion)
    planned = changes(salt.run("state.apply", "wgmesh.absent", "test=True", minion_tgt=MINION))
    assert set(planned) == {"wgmesh-beacon-absent", "wgmesh-engine-absent", "wgmesh-uninstalled"}
    assert traces(minion) == before
    done = changes(salt.run("state.apply", "wgmesh.absent", minion_tgt=MINION))
    assert set(done) == set(planned)
    assert traces(minion) == ["/etc/wireguard/wgmesh.key", "/etc/wireguard/wgmesh.key.minion"]
    assert changes(salt.run("state.apply", "wgmesh.absent", minion_tgt=MINION)) == {}


def test_formula_restores_mesh_and_address(salt, salt_run, minion, pillar_folder):
    """One command restores everything, with the address that the node had."""
    write_policy(pillar_folder, POLICY)
    salt_run.run("wgmesh.converge")
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0
    shown = json.loads(subprocess.run(["ip", "-json", "addr", "show", "wg0"], capture_output=True, check=True).stdout)
    assert "10.100.0.7" in {entry["local"] for entry in shown[0]["addr_info"]}
    assert changes(salt.run("state.apply", "wgmesh", minion_tgt=MINION)) == {}
    assert "/run/wgmesh/watch.pid" in traces(minion)


def test_absent_deletes_key_on_request(salt, minion):
    """The pillar of one run names the mesh and asks for the deletion of the key."""
    pillar = json.dumps({"wgmesh_absent": {"meshes": "wg0", "key": True}})
    done = changes(salt.run("state.apply", "wgmesh.absent", f"pillar={pillar}", minion_tgt=MINION))
    assert done["wgmesh-wg0-absent"]["key"] == {"old": "/etc/wireguard/wgmesh.key", "new": None}
    assert traces(minion) == []


def test_rollback_names_known_generations(salt_run):
    """An unknown generation is an error that lists the known ones, with exit status 1 and no traceback."""
    result = salt_run.run("wgmesh.rollback", "generation=999")
    assert result.returncode == 1
    assert "generation 999 is not in the ledger; those are: 1" in result.stdout
    assert "Traceback" not in result.stdout
