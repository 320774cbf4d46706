"""Builders of policies and facts, and a Hypothesis strategy for small meshes of every shape."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.policy import Endpoint, MeshPolicy, NodeRule, Role, Site, Topology


def facts(node: str, *underlay: str, ipv6: bool = True) -> Facts:
    """Return facts with a key made from the name, and an underlay address of its own unless given."""
    digest = hashlib.sha256(node.encode()).digest()
    own = underlay or (f"172.16.{digest[0]}.{digest[1]}",)
    return Facts(
        node=node, public_key=base64.b64encode(digest).decode(), salt_key=digest.hex(), underlay=own, ipv6=ipv6
    )


def all_facts(*nodes: str) -> dict[str, Facts]:
    """Return the facts of several nodes."""
    return {node: facts(node) for node in nodes}


def leaf(pattern: str, site: str | None = None, **more: Any) -> NodeRule:
    """Return the rule of a leaf; *routes* and *addresses* are text."""
    more["routes"] = tuple(ip_network(r) for r in more.get("routes", ()))
    more["addresses"] = tuple(ip_address(a) for a in more.get("addresses", ()))
    return NodeRule(pattern=pattern, site=site, **more)


def relay(name: str, host: str = "203.0.113.1", site: str | None = None, **more: Any) -> NodeRule:
    """Return the rule of a relay on the default port."""
    return leaf(name, site, role=Role.RELAY, endpoint=Endpoint(host=host, port=51820), **more)


def mesh(*nodes: NodeRule, network: str = "10.100.0.0/16", sites: tuple[Site, ...] = (), **more: Any) -> MeshPolicy:
    """Return a mesh ``wg0``; *network* may hold several, separated by spaces."""
    return MeshPolicy(
        name="wg0",
        interface="wg0",
        networks=tuple(ip_network(n) for n in network.split()),
        nodes=nodes,
        sites={s.name: s for s in sites},
        **more,
    )


@dataclass(frozen=True)
class World:
    """One policy and the facts of all its nodes."""

    mesh: MeshPolicy
    facts: dict[str, Facts]


@st.composite
def worlds(draw: st.DrawFn, most_leaves: int = 9) -> World:
    """Draw any topology, up to four relays and three sites, leaves of every kind; in a third of them two families."""
    relays = [f"r{i}" for i in range(draw(st.integers(0, 4)))]
    site_names = [f"s{i}" for i in range(draw(st.integers(0, 3)))]
    leaves = [f"n{i}" for i in range(draw(st.integers(1, most_leaves)))]
    site = st.sampled_from([None, *site_names])
    two = draw(st.integers(0, 2)) == 0
    subnets = ["192.168.1.0/24", "192.168.2.0/24", *(["fd99::/64"] if two else [])]
    behind = st.lists(st.sampled_from(subnets), max_size=2, unique=True)
    rules = [relay(r, f"203.0.113.{i}", draw(site), routes=draw(behind)) for i, r in enumerate(relays, 1)]
    for i, name in enumerate(leaves, 1):
        kind = draw(st.sampled_from(["plain", "nat", "public"]))
        routes = draw(behind)
        endpoint = Endpoint(host=f"198.51.100.{i}", port=51820) if kind == "public" else None
        rules.append(leaf(name, draw(site), nat=kind == "nat", endpoint=endpoint, routes=routes))
    sites = tuple(
        Site(
            name=name,
            relays=tuple(draw(st.lists(st.sampled_from(relays), max_size=3, unique=True))) if relays else (),
            direct=draw(st.booleans()),
            networks=(ip_network(f"10.100.{i}.0/24"),) if draw(st.booleans()) else (),
        )
        for i, name in enumerate(site_names, 1)
    )
    pairs = st.lists(st.sampled_from(leaves + relays), min_size=2, max_size=2, unique=True).map(sorted).map(tuple)
    links = tuple(sorted(set(draw(st.lists(pairs, max_size=3))))) if len(leaves + relays) > 1 else ()
    policy = mesh(
        *draw(st.permutations(rules)),
        network="10.100.0.0/16 fd00:64::/64" if two else "10.100.0.0/16",
        sites=sites,
        links=links,
        topology=draw(st.sampled_from(Topology)),
    )
    known = {n: facts(n, ipv6=n in relays or draw(st.integers(0, 3)) > 0) for n in relays + leaves}
    return World(policy, known)
