"""Generated fleets of any size, with facts as the nodes would publish them."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.policy import MeshPolicy

SITES = 20
RELAYS_A_SITE = 2


def partial(nodes: int) -> tuple[MeshPolicy, dict[str, Facts]]:
    """Return a mesh of 20 sites with two relays each. The other nodes are leaves behind NAT, evenly over the sites."""
    sites = {f"s{s:02}": {"relays": [f"relay-s{s:02}-{r}" for r in range(RELAYS_A_SITE)]} for s in range(SITES)}
    rules: dict[str, dict[str, Any]] = {
        relay: {"role": "relay", "site": site, "endpoint": f"203.0.{s}.{r + 1}"}
        for s, (site, entry) in enumerate(sites.items())
        for r, relay in enumerate(entry["relays"])
    }
    rules |= {f"leaf-{site}-*": {"site": site, "nat": True} for site in sites}
    names = list(rules)[: SITES * RELAYS_A_SITE]
    names += [f"leaf-s{i % SITES:02}-{i}" for i in range(nodes - len(names))]
    raw = {"wg0": {"network": ["10.0.0.0/8", "fd00::/64"], "sites": sites, "nodes": rules}}
    return policy.parse_policy(raw).meshes["wg0"], {name: facts(name, i) for i, name in enumerate(names)}


def full(nodes: int) -> tuple[MeshPolicy, dict[str, Facts]]:
    """Return a mesh of public nodes with a direct link per pair: the mesh that wg-meshconf can write."""
    rules = {f"n{i}": {"endpoint": str(IPv4Address("198.18.0.0") + i)} for i in range(1, nodes + 1)}
    raw = {"wg0": {"network": "10.0.0.0/16", "topology": "full", "nodes": rules}}
    return policy.parse_policy(raw).meshes["wg0"], {name: facts(name, i) for i, name in enumerate(rules)}


def facts(name: str, number: int) -> Facts:
    """Return facts that differ from node to node as real ones do."""
    digest = hashlib.sha256(name.encode()).digest()
    underlay = str(ip_address("172.16.0.0") + number)
    return Facts(
        node=name,
        public_key=base64.b64encode(digest).decode(),
        salt_key=digest.hex(),
        underlay=(underlay,),
        networks=(str(ip_network(f"{underlay}/32")),),
    )
