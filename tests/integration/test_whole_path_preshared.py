"""Preshared keys on a real master: from the policy to the kernel, and nowhere else. The other node is simulated."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
import salt.cache as salt_cache

from saltext_wgmesh.core.inputs import salt_key
from tests.integration.conftest import MINION, POLICY, write_policy
from tests.lab.wait import wait_until

pytestmark = pytest.mark.root
OTHER = "node2"
PEM = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n"


@pytest.fixture(scope="module")
def neighbour(salt, master, pillar_folder):
    """Add a second node with an accepted key and facts, which answers no job, and a policy with preshared keys."""
    Path(master.config["pki_dir"], "minions", OTHER).write_text(PEM)
    facts = {
        "schema": 1,
        "public_key": base64.b64encode(bytes(31) + b"\x09").decode(),
        "salt_key": salt_key.fingerprint(PEM),
        "underlay": ["192.0.2.2"],
        "networks": [],
        "ipv6": True,
    }
    salt_cache.factory(master.config).store("mine", OTHER, {"wgmesh.facts": facts})
    mesh = POLICY["wgmesh"]["wg0"]
    nodes = {**mesh["nodes"], OTHER: {"endpoint": "192.0.2.2"}}
    write_policy(pillar_folder, {"wgmesh": {"wg0": {**mesh, "nodes": nodes, "preshared_keys": True}}})
    return facts["public_key"]


def held(public_key: str) -> str:
    """Return the preshared key that the kernel has for the neighbour; empty if it has no such peer."""
    argv = ["wg", "show", "wg0", "preshared-keys"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in shown.splitlines()).get(public_key, "")


def secrets_of(master) -> set[str]:
    """Return the mesh's secrets, as the master stores them."""
    return {path.read_text().strip() for path in Path(master.config["pki_dir"], "wgmesh", "wg0").iterdir()}


def places(folder: str, text: str) -> list[str]:
    """Return the files below *folder* that contain *text*."""
    return subprocess.run(["grep", "-rlF", text, folder], capture_output=True, text=True, check=False).stdout.split()


def test_preshared_keys_reach_only_the_kernel(salt, salt_run, master, minion, neighbour):
    """Preshared keys are in the kernel, and in no cache, log, event, return or pillar of another node.

    The formula sets them. A rotation makes a second secret, and keeps the key of this pair, since its other end does
    not answer. The mesh's secrets are in the master's own files only.
    """
    assert salt.run("state.apply", "wgmesh", minion_tgt=MINION).returncode == 0
    # A run of the test before may still have planned with the policy before, which has no neighbour.
    key = wait_until(lambda: held(neighbour), 60, "the neighbour to be a peer")
    assert len(base64.b64decode(key, validate=True)) == 32
    rotated = salt_run.run("wgmesh.rotate_preshared").data["wg0"]
    assert rotated["psk_laggards"] == [OTHER]
    assert held(neighbour) == key
    secrets = secrets_of(master)
    assert len(secrets) == 2
    pillar = salt.run("pillar.items", minion_tgt=MINION)
    assert "wgmesh_preshared" in pillar.data
    returned = [
        pillar.stdout,
        salt.run("wgmesh.show", minion_tgt=MINION).stdout,
        salt.run("wgmesh.apply", minion_tgt=MINION).stdout,
        salt_run.run("wgmesh.plan").stdout,
        salt_run.run("wgmesh.status", "live=False").stdout,
        salt_run.run("pillar.show_pillar", MINION).stdout,
        salt_run.run("cache.pillar", f"tgt={MINION}").stdout,
    ]
    for text in (key, *secrets):
        assert text not in "".join(returned)
        for root in (master.config["root_dir"], minion.config["root_dir"]):
            kept = [place for place in places(root, text) if not place.endswith(".secret")]
            assert kept == []


def test_secret_is_readable_by_master_alone(master, neighbour):
    """Only root can read the secrets, and Salt does not list them as minion keys."""
    folder = Path(master.config["pki_dir"], "wgmesh")
    assert {oct(p.stat().st_mode & 0o777) for p in folder.rglob("*.secret")} == {"0o600"}
    assert oct((folder / "wg0").stat().st_mode & 0o777) == "0o700"
    assert sorted(os.listdir(Path(master.config["pki_dir"], "minions"))) == [MINION, OTHER]
