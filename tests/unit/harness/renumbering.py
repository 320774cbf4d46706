"""Policies of one fleet that differ in their networks, and what the two ends of its links hear of each other."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from hypothesis import strategies as st

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Plan
from tests.unit.harness.strategies import SITES, Fleet

FOUR = ("10.100.0.0/16", "10.200.0.0/16", "10.100.8.0/21", "10.0.0.0/8")
"""Two of them are inside the last one, and one inside the first."""
SIX = ("fd00:64::/64", "fd00:65::/64")
SUBNETS = ("10.100.7.0/24", "10.200.7.0/24", "192.168.7.0/24", "fd00:65::/64")
"""Three of them are inside networks of other policies."""


@st.composite
def networks(draw: st.DrawFn) -> list[str]:
    """Draw a network of one family or of both."""
    families = draw(st.sampled_from([(FOUR,), (FOUR,), (FOUR, SIX), (SIX,)]))
    return [draw(st.sampled_from(family)) for family in families]


def renumbered(draw: st.DrawFn, fleet: Fleet) -> dict[str, Any]:
    """Return the policy of *fleet* with other networks, blocks of sites, subnets and explicit addresses."""
    raw = copy.deepcopy(fleet.raw)
    mesh = raw["wg0"]
    mesh["network"] = draw(networks())
    listed = [ip_network(n) for n in mesh["network"]]
    four = next((n for n in listed if n.version == 4), None)
    for number, site in enumerate(SITES, 8):
        block = four and f"{four.network_address + 256 * (number % 8)}/24"
        mesh["sites"][site]["network"] = [block] if block and draw(st.booleans()) else []
    shift = draw(st.integers(0, 2))
    for number, rule in enumerate(mesh["nodes"].values()):
        rule.pop("routes", None)
        subnets = [s for s in map(ip_network, SUBNETS) if s.version in {n.version for n in listed}]
        free = [str(s) for s in subnets if not any(s.version == n.version and s.overlaps(n) for n in listed)]
        if free and draw(st.booleans()):
            rule["routes"] = [draw(st.sampled_from(free))]
        if four and draw(st.integers(0, 3)) == 3:
            rule["address"] = str(four.network_address + 1024 + number + shift)
    return raw


def unheard(plan: Plan) -> Iterator[str]:
    """Yield the links of *plan*, perhaps a mixture, by which one end sends BFD packets that the other end misses."""
    peers = {(n, p.node): p for n, view in plan.views.items() for i in view.interfaces for p in i.peers}
    for (sender, receiver), peer in peers.items():
        back = peers.get((receiver, sender))
        if back is None:
            continue
        own = plan.views[sender].addresses
        source = next((a for a in own if address_family(a) == address_family(peer.address)), None)
        hosts = {p.rpartition("/")[0] for p in back.allowed_ips if p.endswith(("/32", "/128"))}
        listens_to = {back.address, *back.other_addresses}
        families = {address_family(a) for a in listens_to}
        if peer.address not in plan.views[receiver].addresses:
            yield f"{receiver} has no {peer.address}, where {sender} probes it"
        elif source not in listens_to | {h for h in hosts if address_family(h) in families}:
            yield f"{receiver} does not listen for {source} of {sender}"
        elif address_family(str(source)) not in families:
            yield f"{receiver} has no socket for {source} of {sender}"
