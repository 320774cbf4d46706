"""The order in which the master pushes views, so that a wrong one stops at the first relay.

Some changes are harmless, in whatever order nodes apply them: new links, removed links that no route uses, and other
routes (``core.transition.step``). Changes of links in use are pushed in waves. Relays come first, then leaves that some
neighbour opens connections to, and then leaves that open all their connections themselves. Links that other nodes may
still use are withdrawn last, after these have confirmed that they do not use them. Until then a leaf that reaches the
master only that way can still answer.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Container, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from saltext_wgmesh.core.model.policy import Network, Role
from saltext_wgmesh.core.model.view import Interface, View
from saltext_wgmesh.core.transition.interface_rename import interface_renames


def is_disruptive(old: View, new: View) -> bool:
    """Return whether a node that changes from *old* to *new* alters a link of both views, or loses an address."""
    if old.mtu != new.mtu or not set(old.addresses) <= set(new.addresses) or interface_renames(old, new):
        return True
    before = {i.name: i for i in old.interfaces}
    return any(_alters_link(before[i.name], i) for i in new.interfaces if i.name in before)


def _alters_link(old: Interface, new: Interface) -> bool:
    if old.listen_port != new.listen_port:
        return True
    before = {p.node: p for p in old.peers}
    return any(
        # A key that the peer may run already interrupts nothing.
        not (set(p.keys) & set(q.keys) and p.address == q.address) or (p.endpoint and p.endpoint != q.endpoint)
        for p in new.peers
        if (q := before.get(p.node))
    )


class Wave(enum.IntEnum):
    """When the master pushes to a node: lower waves first."""

    HARMLESS = 0
    """Nodes that add links, remove unused links, or change routes."""
    CANARY_RELAY = 1
    """The first relay whose links change."""
    RELAYS = 2
    """All other relays whose links change."""
    RESPONDERS = 3
    """Leaves that some neighbour opens connections to."""
    INITIATORS = 4
    """Leaves that open all their connections themselves."""
    WITHDRAWING = 5
    """Relays that no longer deliver to a subnet."""
    LEAVING = 6
    """Nodes that leave the mesh."""

    @property
    def withdraws(self) -> bool:
        """Whether other nodes may still use what the nodes of this wave give up."""
        return self >= Wave.WITHDRAWING


def revokes_key(old: View, new: View, valid: Container[str]) -> bool:
    """Return whether *new* no longer admits a public key that *old* admits and that is not *valid* any longer.

    *valid* are the keys of all nodes that the mesh knows. The node of such a key was deleted, or has another key: until
    the view is applied, its former key is still admitted.
    """
    kept = _peer_keys(new)
    return any(key not in kept and key not in valid for key in _peer_keys(old))


def _peer_keys(view: View) -> frozenset[str]:
    return frozenset(key for i in view.interfaces for peer in i.peers for key in peer.keys)


def push_order(
    views: Mapping[str, tuple[View | None, View | None]], no_canaries: Collection[str] = ()
) -> dict[str, Wave]:
    """Return node → its wave.

    *views* is node → the view that it has applied and the view to push. The first is None if it is not known, the
    second if the node leaves. *no_canaries* are not the first relay if there is another one.
    """
    found = {node: _wave(old, new) for node, (old, new) in views.items()}
    relays = sorted((n for n, wave in found.items() if wave is Wave.RELAYS), key=lambda n: (n in no_canaries, n))
    return {**found, **dict.fromkeys(relays[:1], Wave.CANARY_RELAY)}


def _wave(old: View | None, new: View | None) -> Wave:
    if old is None or new is None:
        return Wave.HARMLESS if old is None else Wave.LEAVING
    if not is_disruptive(old, new):
        return Wave.WITHDRAWING if _withdraws_subnet(old, new) else Wave.HARMLESS
    if new.role is Role.RELAY:
        return Wave.RELAYS
    return Wave.RESPONDERS if any(p.endpoint is None for i in new.interfaces for p in i.peers) else Wave.INITIATORS


def _withdraws_subnet(old: View, new: View) -> bool:
    """Return whether a relay loses its route to a subnet, and keeps all its peers.

    A relay that loses a peer waits for no other node, since that peer must go.
    """
    if new.role is not Role.RELAY:
        return False
    peers_before, peers_after = ({p.node for i in view.interfaces for p in i.peers} for view in (old, new))
    if not peers_before <= peers_after:
        return False
    networks = [ip_network(n) for n in old.networks]
    lost = _routed_prefixes(old) - _routed_prefixes(new)
    return any(not _is_inside(ip_network(prefix), networks) for prefix in lost)


def _routed_prefixes(view: View) -> set[str]:
    return {prefix for route in view.routes for prefix in route.prefixes}


def _is_inside(prefix: Network, networks: Iterable[Network]) -> bool:
    """Return whether *prefix* is part of one of *networks*."""
    if isinstance(prefix, IPv4Network):
        return any(prefix.subnet_of(n) for n in networks if isinstance(n, IPv4Network))
    return any(prefix.subnet_of(n) for n in networks if isinstance(n, IPv6Network))
