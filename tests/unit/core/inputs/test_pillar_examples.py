"""The examples that users copy are policies that this version accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.inputs.node_matching import rule_for
from saltext_wgmesh.core.model.policy import MeshPolicy, Policy, Role, Topology

FOLDER = Path(__file__).parents[4] / "pillar-examples"


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def read(name: str) -> Policy:
    pillar = load(name)
    assert list(pillar) == [constants.PILLAR_POLICY]
    return policy.parse_policy(pillar[constants.PILLAR_POLICY])


def relays(mesh: MeshPolicy) -> list[str]:
    return [rule.pattern for rule in mesh.nodes if rule.role is Role.RELAY]


def test_every_example_has_a_test() -> None:
    """A new example needs a test of its own."""
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "full.sls",
        "gateways.sls",
        "hub.sls",
        "partial.sls",
        "several-meshes.sls",
        "smallest.sls",
        "top.sls",
    ]


def test_smallest_example_has_all_minions() -> None:
    """One network and one glob make a mesh of all minions."""
    mesh = read("smallest.sls").meshes["wg0"]
    assert mesh.topology is Topology.FULL
    assert [str(n) for n in mesh.networks] == ["10.100.0.0/16"]
    assert rule_for(mesh, "any.minion.example.com") is mesh.nodes[0]


def test_partial_example_has_sites_and_relays() -> None:
    """The architecture's example: three relays, two sites, a gateway, a glob, a link."""
    mesh = read("partial.sls").meshes["wg0"]
    assert mesh.topology is Topology.PARTIAL
    assert [str(n) for n in mesh.networks] == ["10.100.0.0/16", "fd00:64::/64"]
    assert [str(r) for r in mesh.reserved] == ["10.100.0.0/28", "10.100.255.200-10.100.255.254"]
    assert relays(mesh) == ["relay-fra1", "relay-fra2", "relay-nyc1"]
    assert mesh.sites["nyc"].relays == ("relay-nyc1", "relay-fra1")
    assert [str(r.endpoint) for r in mesh.nodes if r.endpoint] == [
        "203.0.113.10:51820",
        "203.0.113.11:51820",
        "relay.nyc.example.com:51820",
    ]
    web = rule_for(mesh, "web42")
    assert web is not None
    assert (web.site, web.nat) == ("fra", True)
    assert rule_for(mesh, "mail") is None
    assert mesh.links == (("db1", "web1"),)


def test_full_example_has_endpoints_and_relay() -> None:
    """Nodes with an endpoint beside nodes behind NAT, and a relay for these."""
    mesh = read("full.sls").meshes["wg0"]
    assert mesh.topology is Topology.FULL
    assert relays(mesh) == ["gate"]
    assert [str(r.endpoint) for r in mesh.nodes if r.endpoint] == [
        "gate.example.com:51820",
        "198.51.100.21:51820",
        "[2001:db8:5::22]:51820",
    ]


def test_hub_example_has_relays_and_link() -> None:
    """Two relays, and links that name a member of a glob."""
    mesh = read("hub.sls").meshes["wg0"]
    assert mesh.topology is Topology.HUB
    assert (mesh.mtu, mesh.keepalive) == (1380, 15)
    assert relays(mesh) == ["hub1", "hub2"]
    assert mesh.links == (("backup", "branch-7"),)


def test_several_meshes_example_shares_a_node() -> None:
    """A node may be in both, by a rule of its own in each."""
    meshes = read("several-meshes.sls").meshes
    assert list(meshes) == ["adm", "wg0"]
    rules = [rule_for(mesh, "web1.nyc.example.com") for mesh in meshes.values()]
    assert [rule.pattern if rule else None for rule in rules] == ["*", "*.nyc.example.com"]
    assert str(meshes["wg0"].sites["nyc"].networks[0]) == "10.100.32.0/20"


def test_gateways_example_has_two_gateways() -> None:
    """One subnet on two nodes: gateways in the order of the entries."""
    mesh = read("gateways.sls").meshes["wg0"]
    assert [r.pattern for r in mesh.nodes if "192.168.7.0/24" in map(str, r.routes)] == ["gw-a", "gw-b"]
    assert mesh.sites["office"].direct is False


def test_top_example_targets_the_master_only() -> None:
    """The policy goes to the master's own id, and to no minion."""
    assert load("top.sls") == {"base": {"*_master": ["wgmesh"]}}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sls")), ids=lambda path: path.name)
def test_example_is_plain_yaml(path: Path) -> None:
    """They are plain YAML, so that they read the same under any renderer."""
    source = path.read_text(encoding="utf-8")
    assert "{{" not in source
    assert "{%" not in source
