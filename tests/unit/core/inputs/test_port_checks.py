"""Each port at a host, and each port of a node, has one user in every policy that is accepted."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError, PolicyError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.planning import planner
from tests.unit.harness.worlds import all_facts

HOSTS = ["home.example.org", "home.example.org.", "203.0.113.9", "relay{}.example.org"]


@st.composite
def policies(draw):
    """Draw one or two meshes with relays and leaves that share hosts, at ports that are close together."""
    names, networks = count(1), iter(("10.1.0.0/16", "10.2.0.0/16"))
    raw = {}
    for mesh in draw(st.sampled_from([("wg0",), ("wg0", "wg1")])):
        nodes = {}
        for _ in range(draw(st.integers(1, 4))):
            number = next(names)
            host = draw(st.sampled_from(HOSTS)).format(number)
            port = draw(st.integers(65525, 65535) | st.integers(3775, 3800) | st.integers(51820, 51830))
            role = draw(st.sampled_from(["relay", "relay", "leaf"]))
            nodes[f"n{number}"] = {"role": role, "endpoint": f"{host}:{port}"}
        listen = draw(st.sampled_from([51820, 51823, 51825, 3780, 7783, 65530]))
        raw[mesh] = {"network": next(networks), "listen_port": listen, "topology": "full", "nodes": nodes}
    return raw


@settings(max_examples=400, deadline=None)
@given(raw=policies(), numbers=st.permutations(range(1, 9)))
def test_planned_port_has_one_user(raw, numbers):
    """With whatever numbers the relays have: no two sockets need one port of a host, or one of BFD's on a node.

    Ports of two meshes on one node are compared when both are planned: see the tests of the converge.
    """
    at_host, on_node = Counter(), set()
    try:
        meshes = policy.parse_policy(raw).meshes
        for name, mesh in meshes.items():
            nodes = list(raw[name]["nodes"])
            given_numbers = dict(zip(nodes, numbers, strict=False))
            known = Allocations(
                relay_numbers={n: i for n, i in given_numbers.items() if raw[name]["nodes"][n]["role"] == "relay"}
            )
            planned = planner.plan_mesh(mesh, all_facts(*nodes), known)
            wanted = {(m.endpoint.host.rstrip("."), m.endpoint.port, n) for n, m in planned.members.items()}
            listens = {mesh.listen_port}
            for view in planned.views.values():
                listens |= {i.listen_port for i in view.interfaces if i.listen_port}
                for peer in (p for i in view.interfaces for p in i.peers if p.endpoint):
                    host, _, port = peer.endpoint.rpartition(":")
                    wanted.add(
                        (host.rstrip("."), int(port), peer.node if i_is_access(view, peer) else (peer.node, view.node))
                    )
            at_host.update((host, port) for host, port, _ in wanted)
            on_node |= listens
    except (PolicyError, PlanError):
        return
    assert not [claim for claim, users in at_host.items() if users > 1]
    assert not on_node & {3784, 7784}
    assert all(1 <= port <= 65535 for port in (*on_node, *(p for _, p in at_host)))


def i_is_access(view, peer):
    """Say whether the peer is called at its access interface: only trunks have a port of their own."""
    (interface,) = (i for i in view.interfaces if peer in i.peers)
    return not interface.name.rpartition("-")[2].startswith("t")


TWO = """
wg0:
  network: 10.100.0.0/16
  nodes:
    r1: {{role: relay, endpoint: 'home.example.org:51820'}}
    r2: {{role: relay, endpoint: '{}'}}
    n1: {}
"""


@pytest.mark.parametrize("where", ["home.example.org:51821", "home.example.org.:51822", "HOME.example.org.:51820"])
def test_relays_behind_one_router_need_ports_apart(where):
    """Both trunks would call one port there."""
    with pytest.raises(
        PolicyError, match=r"nodes:r2:endpoint: UDP ports .* overlap 51820-51822, which are those of .*r1"
    ):
        policy.parse_policy(yaml.safe_load(TWO.format(where, "{}")))


def test_number_that_meets_another_port_is_refused():
    """Numbers grow with each relay that is replaced; the plan is refused before a trunk calls the wrong node."""
    mesh = policy.parse_policy(yaml.safe_load(TWO.format("home.example.org:51823", "{}"))).meshes["wg0"]
    known = all_facts("r1", "r2", "n1")
    assert planner.plan_mesh(mesh, known, Allocations(relay_numbers={"r1": 1, "r2": 2}))
    with pytest.raises(
        PlanError, match=r"trunks towards relay number 3 have no ports: port 51823 of home\.example\.org"
    ):
        planner.plan_mesh(mesh, known, Allocations(relay_numbers={"r1": 1, "r2": 3}))


@pytest.mark.parametrize("network", ["::ffff:10.0.0.0/104", "::ffff:a00:0/104", "::10.0.0.0/104", "::/64"])
@pytest.mark.parametrize("key", ["network", "routes"])
def test_network_of_ipv4_in_ipv6_form_is_refused(network, key):
    """The kernel's tools spell its addresses with dots, so that no apply could finish."""
    raw = yaml.safe_load(TWO.format("relay.example.org", "{}"))
    (raw["wg0"] if key == "network" else raw["wg0"]["nodes"]["n1"])[key] = network
    with pytest.raises(PolicyError, match=f"{key}: .* touches ::"):
        policy.parse_policy(raw)
