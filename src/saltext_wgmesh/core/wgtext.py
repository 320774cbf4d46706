"""WireGuard's own texts: ``wg show all dump`` in, arguments of ``wg set`` out.

A dump prints private and preshared keys. They are dropped here, while it is taken apart, and never become
part of a value: of a preshared key its identifier is kept. Into arguments it goes as the path of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saltext_wgmesh.core import preshared
from saltext_wgmesh.core.device import PeerConfig, PeerStats
from saltext_wgmesh.core.errors import HostError

INTERFACE_FIELDS = 5
"""Interface, private key, public key, listen port, fwmark (wg(8), ``show all dump``)."""
PEER_FIELDS = 9
"""Interface, public key, preshared key, endpoint, allowed-ips, latest handshake, rx, tx, keepalive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumped:
    """One device of a dump: configuration and statistics apart."""

    name: str
    public_key: str
    """Empty: the device has no key."""
    listen_port: int
    peers: tuple[PeerConfig, ...]
    stats: tuple[PeerStats, ...]


def parse_dump(text: str) -> dict[str, Dumped]:
    """The devices of ``wg show all dump`` by name; HostError names the line that can't be read, not its text."""
    heads: dict[str, tuple[str, int]] = {}
    peers: dict[str, list[tuple[PeerConfig, PeerStats]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("\t")
        try:
            if len(fields) == INTERFACE_FIELDS:
                heads[fields[0]] = (_optional(fields[2]) or "", int(fields[3]))
            elif len(fields) == PEER_FIELDS:
                peers.setdefault(fields[0], []).append(_peer(fields))
            else:
                raise ValueError
        except ValueError:
            # ``from None``, and no excerpt: the line may hold a key.
            raise HostError(f"line {number} of 'wg show all dump' is not as wg(8) documents it") from None
    return {name: _dumped(name, *head, peers.get(name, [])) for name, head in sorted(heads.items())}


def _dumped(name: str, public_key: str, port: int, peers: list[tuple[PeerConfig, PeerStats]]) -> Dumped:
    ordered = sorted(peers, key=lambda pair: pair[0].public_key)
    return Dumped(
        name=name,
        public_key=public_key,
        listen_port=port,
        peers=tuple(config for config, _ in ordered),
        stats=tuple(stats for _, stats in ordered),
    )


def _peer(fields: list[str]) -> tuple[PeerConfig, PeerStats]:
    device, public_key, secret, endpoint, allowed, handshake, received, sent, keepalive = fields
    config = PeerConfig(
        public_key=public_key,
        endpoint=_optional(endpoint),
        keepalive=0 if keepalive == "off" else int(keepalive),
        # The kernel prints prefixes in canonical form already.
        allowed_ips=tuple(sorted(allowed.split(","))) if _optional(allowed) else (),
        preshared=preshared.identifier(secret) if _optional(secret) else None,
    )
    stats = PeerStats(
        device=device,
        public_key=public_key,
        endpoint=_optional(endpoint),
        handshake_at=int(handshake) or None,
        received=int(received),
        sent=int(sent),
    )
    return config, stats


def _optional(field: str) -> str | None:
    return None if field in ("(none)", "") else field


def add_peer(peer: PeerConfig, folder: str) -> tuple[str, ...]:
    """Arguments of ``wg set <device>`` that make *peer*. A name as endpoint is left out: see ``set_endpoint``.

    *folder* has the preshared keys, each in a file with its identifier as name.
    """
    return (
        "peer",
        peer.public_key,
        *(_preshared_key(peer, folder) if peer.preshared else ()),
        *(("endpoint", peer.endpoint) if peer.endpoint and not is_name(peer.endpoint) else ()),
        *(("persistent-keepalive", str(peer.keepalive)) if peer.keepalive else ()),
        "allowed-ips",
        ",".join(peer.allowed_ips),
    )


def alter_peer(old: PeerConfig, new: PeerConfig, folder: str, *, allowed_ips: bool) -> tuple[str, ...]:
    """Arguments that set only what differs; empty if nothing does. *allowed_ips* False: these are not to be set.

    A full list of allowed-ips is remove-all and add in one, so an unchanged list is never sent.
    """
    words: list[str] = []
    if new.preshared != old.preshared:
        words += _preshared_key(new, folder)
    if new.endpoint and new.endpoint != old.endpoint and not is_name(new.endpoint):
        words += ["endpoint", new.endpoint]
    if new.keepalive != old.keepalive:
        words += ["persistent-keepalive", str(new.keepalive)]
    if allowed_ips and new.allowed_ips != old.allowed_ips:
        words += ["allowed-ips", ",".join(new.allowed_ips)]
    return ("peer", new.public_key, *words) if words else ()


def set_preshared(peer: PeerConfig, folder: str) -> tuple[str, ...]:
    """Arguments that give a peer its preshared key, or take it away."""
    return ("peer", peer.public_key, *_preshared_key(peer, folder))


def _preshared_key(peer: PeerConfig, folder: str) -> tuple[str, str]:
    # An empty file is no key (wg(8)).
    return ("preshared-key", f"{folder}/{peer.preshared}" if peer.preshared else "/dev/null")


def set_endpoint(peer: PeerConfig) -> tuple[str, ...]:
    """Arguments that have ``wg`` look the name up and set what it finds. Apart, since a name may not resolve."""
    return ("peer", peer.public_key, "endpoint", peer.endpoint or "")


def remove_peer(public_key: str) -> tuple[str, ...]:
    """Arguments that remove a peer."""
    return ("peer", public_key, "remove")


def is_name(endpoint: str) -> bool:
    """True for ``relay.example.com:51820``: what no dump ever shows, as the kernel knows addresses only."""
    host = endpoint.rpartition(":")[0]
    return not (host.startswith("[") or all(part.isdecimal() for part in host.split(".")))


def commands(device: str, words: Iterable[tuple[str, ...]], chunk: int = 100) -> Iterator[tuple[str, ...]]:
    """``wg set`` commands for one device, each for at most *chunk* peers: an argument list is bounded."""
    parts = [w for w in words if w]
    for start in range(0, len(parts), chunk):
        yield ("wg", "set", device, *(word for part in parts[start : start + chunk] for word in part))
