"""Hypothesis strategies for small policies of every sort, facts, and the plans made from them.

Policies go through ``policy.parse_policy`` as the operator's do, so every drawn policy could be written by hand.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy
from saltext_wgmesh.core.planning import planner

NETWORKS = (["10.100.0.0/16"], ["10.100.0.0/16", "fd00:64::/64"], ["fd00:64::/64"])
SITES = ("fra", "nyc")
BLOCKS = {"fra": "10.100.8.0/24", "nyc": "10.100.9.0/24"}
SUBNETS = ("192.168.7.0/24", "192.168.8.0/23", "fd00:7::/64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A mesh's policy, and the facts of all its nodes."""

    raw: dict[str, Any]
    """The pillar's value from which the policy was parsed."""
    mesh: MeshPolicy
    facts: dict[str, Facts]


def public_key(name: str) -> str:
    """Return a key that no other name has."""
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def facts_of(name: str, underlay: str, ipv6: bool = True) -> Facts:
    """Return facts as the node of that name would publish them."""
    return Facts(node=name, public_key=public_key(name), salt_key=f"key of {name}", underlay=(underlay,), ipv6=ipv6)


@st.composite
def fleets(draw: st.DrawFn, *, relays: int = 3, leaves: int = 4) -> Fleet:
    """Draw meshes with at most *relays* relays and *leaves* leaves, and at least two nodes."""
    relay_names = [f"r{i}" for i in range(1, draw(st.integers(0, relays)) + 1)]
    fewest = max(0, 2 - len(relay_names))
    leaf_names = [f"n{i}" for i in range(1, draw(st.integers(fewest, leaves)) + 1)]
    network = draw(st.sampled_from(NETWORKS))
    sites = {site: draw(_sites(site, relay_names, network)) for site in SITES}
    nodes = {name: draw(_relays(number)) for number, name in enumerate(relay_names, 1)}
    nodes |= {name: draw(_leaves(number, bool(relay_names))) for number, name in enumerate(leaf_names, 1)}
    names = relay_names + leaf_names
    behind_nat = {name for name in leaf_names if nodes[name].get("nat")}
    pairs = [[a, b] for a in names for b in leaf_names if a != b and not {a, b} <= behind_nat]
    raw = {
        "network": network,
        "topology": draw(st.sampled_from(["full", "partial", "hub"])),
        "sites": sites,
        "nodes": nodes,
        "links": draw(st.lists(st.sampled_from(pairs), max_size=3, unique_by=frozenset)) if pairs else [],
    }
    only_six = len(network) == 1 and ":" in network[0]
    facts = {
        name: facts_of(name, f"172.16.0.{i}", ipv6=only_six or name in relay_names or draw(st.booleans()))
        for i, name in enumerate(names, 1)
    }
    return Fleet(raw={"wg0": raw}, mesh=policy.parse_policy({"wg0": raw}).meshes["wg0"], facts=facts)


def _sites(site: str, relays: list[str], network: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    own = st.lists(st.sampled_from(relays), unique=True) if relays else st.just([])
    block = st.sampled_from([[], [BLOCKS[site]]]) if network[0].startswith("10.") else st.just([])
    return st.fixed_dictionaries({"relays": own, "direct": st.booleans(), "network": block})


def _relays(number: int) -> st.SearchStrategy[dict[str, Any]]:
    endpoint = st.sampled_from([f"198.51.100.{number}", f"198.51.100.{number}:7000", f"relay{number}.example.com"])
    return st.fixed_dictionaries(
        {"role": st.just("relay"), "endpoint": endpoint},
        optional={"site": st.sampled_from(SITES), "routes": _subnets()},
    )


def _leaves(number: int, have_relays: bool) -> st.SearchStrategy[dict[str, Any]]:
    nat = [{"nat": True}] if have_relays or number == 1 else []
    reach = st.sampled_from([{}, {"endpoint": f"203.0.113.{number}"}, *nat])
    rest = st.fixed_dictionaries({}, optional={"site": st.sampled_from(SITES), "routes": _subnets()})
    return st.builds(lambda a, b: {**a, **b}, reach, rest)


def _subnets() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(SUBNETS), max_size=2, unique=True)


@st.composite
def plans(draw: st.DrawFn, *, relays: int = 3, leaves: int = 4) -> Plan:
    """Draw plans of such meshes, without those that the planner refuses (no relay, and some pair can't be direct)."""
    fleet = draw(fleets(relays=relays, leaves=leaves))
    try:
        return planner.plan_mesh(fleet.mesh, fleet.facts, Allocations())
    except PlanError:
        reject()
