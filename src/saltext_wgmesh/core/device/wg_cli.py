"""The texts of ``wg``: parse ``wg show all dump``, and make arguments of ``wg set``.

A dump has private and preshared keys. The parser drops them, so that no value holds one: it keeps the identifier of a
preshared key. In arguments, a preshared key is the path of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saltext_wgmesh.core.device.state import PeerConfig, PeerStats
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.keys import psk

INTERFACE_FIELDS = 5
"""Interface, private key, public key, listen port, fwmark (wg(8), ``show all dump``)."""
PEER_FIELDS = 9
"""Interface, public key, preshared key, endpoint, allowed-ips, latest handshake, rx, tx, keepalive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumped:
    """One device of a dump, with configuration and statistics apart."""

    name: str
    public_key: str
    """Empty: the device has no key."""
    listen_port: int
    peers: tuple[PeerConfig, ...]
    stats: tuple[PeerStats, ...]


def parse_dump(text: str) -> dict[str, Dumped]:
    """Return the devices of ``wg show all dump`` by name.

    HostError if a line is malformed: the message has its number, not its text, which may hold a key.
    """
    interfaces: dict[str, tuple[str, int]] = {}
    peers: dict[str, list[tuple[PeerConfig, PeerStats]]] = {}
    for number, line in enumerate(text.strip("\n").split("\n"), start=1):
        fields = line.split("\t")
        if not line:
            continue
        try:
            if len(fields) == INTERFACE_FIELDS:
                interfaces[fields[0]] = (_optional(fields[2]) or "", int(fields[3]))
            elif len(fields) == PEER_FIELDS:
                peers.setdefault(fields[0], []).append(_peer(fields))
            else:
                raise ValueError
        except ValueError:
            # ``from None``, and no excerpt: the line may hold a key.
            raise HostError(f"line {number} of 'wg show all dump' is not as wg(8) documents it") from None
    return {name: _dumped(name, *interface, peers.get(name, [])) for name, interface in sorted(interfaces.items())}


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
        psk_id=psk.psk_id(secret) if _optional(secret) else None,
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
    """Return arguments of ``wg set <device>`` that add *peer*.

    An endpoint that is a name is left out: see ``set_endpoint``. *folder* has the preshared keys, each in a file named
    by its identifier.
    """
    return (
        "peer",
        peer.public_key,
        *(_preshared_key(peer, folder) if peer.psk_id else ()),
        *(("endpoint", peer.endpoint) if peer.endpoint and not is_host_name(peer.endpoint) else ()),
        *(("persistent-keepalive", str(peer.keepalive)) if peer.keepalive else ()),
        "allowed-ips",
        ",".join(peer.allowed_ips),
    )


def change_peer(old: PeerConfig, new: PeerConfig, folder: str, *, allowed_ips: bool) -> tuple[str, ...]:
    """Return arguments that set only the differences; empty if there are none.

    With *allowed_ips* false, allowed-ips are not set. A list of allowed-ips replaces the old one, by removal of all and
    addition, so an unchanged list is never sent.
    """
    arguments: list[str] = []
    if new.psk_id != old.psk_id:
        arguments += _preshared_key(new, folder)
    if new.endpoint and new.endpoint != old.endpoint and not is_host_name(new.endpoint):
        arguments += ["endpoint", new.endpoint]
    if new.keepalive != old.keepalive:
        arguments += ["persistent-keepalive", str(new.keepalive)]
    if allowed_ips and new.allowed_ips != old.allowed_ips:
        arguments += ["allowed-ips", ",".join(new.allowed_ips)]
    return ("peer", new.public_key, *arguments) if arguments else ()


def set_psk(peer: PeerConfig, folder: str) -> tuple[str, ...]:
    """Return arguments that give a peer its preshared key, or remove it."""
    return ("peer", peer.public_key, *_preshared_key(peer, folder))


def _preshared_key(peer: PeerConfig, folder: str) -> tuple[str, str]:
    # An empty file removes the key (wg(8)).
    return ("preshared-key", f"{folder}/{peer.psk_id}" if peer.psk_id else "/dev/null")


def set_endpoint(peer: PeerConfig) -> tuple[str, ...]:
    """Return arguments that make ``wg`` resolve the endpoint's name and set the result.

    They are a command of their own, since a name may not resolve.
    """
    return ("peer", peer.public_key, "endpoint", peer.endpoint or "")


def remove_peer(public_key: str) -> tuple[str, ...]:
    """Return arguments that remove a peer."""
    return ("peer", public_key, "remove")


def is_host_name(endpoint: str) -> bool:
    """Return whether *endpoint* has a name, as in ``relay.example.com:51820``; the kernel has addresses only."""
    host = endpoint.rpartition(":")[0]
    return not (host.startswith("[") or all(part.isdecimal() for part in host.split(".")))


def wg_commands(device: str, arguments: Iterable[tuple[str, ...]], chunk: int = 100) -> Iterator[tuple[str, ...]]:
    """Yield ``wg set`` commands for one device, each with at most *chunk* of *arguments*.

    The kernel bounds the length of an argument list (execve(2)).
    """
    parts = [part for part in arguments if part]
    # An empty list makes no command: ``wg set`` without arguments fails.
    for start in range(0, len(parts), chunk):
        yield ("wg", "set", device, *(word for part in parts[start : start + chunk] for word in part))
