"""The obstacles to forwarding on a relay: kernel settings, and chains of other programs that drop by default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.untrusted import printable
from saltext_wgmesh.core.model.view import View

_LEGACY_CHAIN = "FORWARD"
_INTERFACE = re.compile(r'\b([io])if(?:name)? (!= )?("[^"]*"|\{[^}]*\})')
"""A match of a rule, as ``nft`` prints it: on the interface of entry or of exit."""
_PASSES = re.compile(r'\b(accept|jump \S+|goto \S+)( comment "[^"]*")?$')
"""The end of a rule that lets packets through, or may do so in another chain."""
MAX_CHAIN_NAME = 200
"""Characters of the name of a chain that a message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardChain:
    """A base chain of the forward hook."""

    family: str
    table: str
    name: str
    drops: bool
    """Whether its policy is to drop."""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def forward_chains(listing: str) -> tuple[ForwardChain, ...]:
    """Return the chains of *listing*, the output of ``nft -j list chains``, that see the packets which IP forwards.

    Raises ValueError if it is no such output.
    """
    return tuple(
        ForwardChain(
            family=str(chain["family"]),
            table=str(chain.get("table")),
            name=str(chain.get("name")),
            drops=chain.get("policy") == "drop",
        )
        for entry in _entries(listing)
        if isinstance(chain := entry.get("chain"), dict)
        and chain.get("hook") == "forward"
        and chain.get("family") in ("ip", "ip6", "inet")
    )


def ends_in_drop(listing: str) -> bool:
    """Return whether the last rule of *listing*, the output of ``nft -j list chain``, drops or rejects every packet.

    firewalld writes such chains: the policy is to accept, and no packet gets there. Raises ValueError as above.
    """
    rules = [rule for entry in _entries(listing) if isinstance(rule := entry.get("rule"), dict)]
    last = rules[-1].get("expr") if rules else None
    statements = last if isinstance(last, list) else []
    kinds = [kind for each in statements if isinstance(each, dict) for kind in each]
    return bool(kinds) and kinds[-1] in ("drop", "reject") and {*kinds[:-1]} <= {"counter", "log"}


def legacy_drops(listing: str) -> bool:
    """Return whether *listing*, the output of ``iptables-legacy -S FORWARD``, drops packets by default."""
    lines = [line.split() for line in listing.splitlines()]
    policy = ["-P", _LEGACY_CHAIN, "DROP"] in lines
    ends = lines[-1][:3] == ["-A", _LEGACY_CHAIN, "-j"] and lines[-1][3:4] in (["DROP"], ["REJECT"]) if lines else False
    return policy or ends


def _entries(listing: str) -> Iterator[dict[str, Any]]:
    try:
        entries = [entry for entry in json.loads(listing)["nftables"] if isinstance(entry, dict)]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no listing of nft: {error!r}") from error
    yield from entries


def names_mesh(listing: str, view: View) -> bool:
    """Return whether *listing*, the rules of a table, names an interface of the mesh, also by a wildcard, or a network.

    Then an administrator has decided on the mesh's packets, and nothing is reported.
    """
    words = {word.strip('{},"') for word in listing.split()}
    interfaces = (pattern for interface in view.interfaces for pattern in _patterns(interface.name))
    return not words.isdisjoint({*interfaces, *view.networks})


def one_way(listing: str, view: View) -> tuple[str, str] | None:
    """Return entry and exit of packets that no rule of *listing*, the rules of a chain, accepts, while those of the
    opposite direction are accepted; None if there are none between the leaves and another relay.

    A rule for a connection state does not count unless it has ``untracked``, as the packets of the mesh are. That makes
    ``ct state established accept`` no way back.
    """
    rules = [_interfaces_of(line) for line in map(str.strip, listing.splitlines()) if _may_pass(line)]
    access, *others = (interface.name for interface in view.interfaces)
    for other in others:
        there, back = ((access, other), (other, access))
        if _is_accepted(there, rules) != _is_accepted(back, rules):
            return back if _is_accepted(there, rules) else there
    return None


def _may_pass(rule: str) -> bool:
    return bool(_PASSES.search(rule)) and ("ct state" not in rule or "untracked" in rule)


def _interfaces_of(rule: str) -> dict[str, list[str]]:
    """Return the names and patterns that *rule* asks for: ``i`` of entry, ``o`` of exit; no key: any interface."""
    return {side: re.findall(r'"([^"]*)"', names) for side, negated, names in _INTERFACE.findall(rule) if not negated}


def _is_accepted(way: tuple[str, str], rules: Iterable[dict[str, list[str]]]) -> bool:
    return any(
        all(_matches(name, rule[side]) for side, name in zip("io", way, strict=True) if side in rule) for rule in rules
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns)


def _patterns(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name[:end]}{sign}" for end in range(1, len(name) + 1) for sign in "*+")


def forwarding_keys(view: View) -> Iterator[str]:
    """Yield the kernel settings, as paths below /proc/sys, without which the node forwards nothing."""
    yield "net/ipv4/ip_forward"
    yield from (f"net/ipv4/conf/{interface.name}/forwarding" for interface in view.interfaces)
    if any(address_family(n) == 6 for n in view.networks):
        yield "net/ipv6/conf/all/forwarding"


def setting_fault(keys: Iterable[str]) -> str:
    """Return a sentence on settings, paths below /proc/sys, that are 0."""
    names = [key.replace("/", ".") for key in keys]
    return f"{', '.join(names)} is 0: this node forwards nothing; set it to 1, or apply again"


def chain_fault(chain: ForwardChain, view: View) -> str:
    """Return a sentence on a foreign chain that drops what the node is to forward."""
    pattern = f"{view.interfaces[0].name}*"
    return (
        f"the chain {printable(str(chain), MAX_CHAIN_NAME)} drops by default, and no rule of its table names an "
        f"interface or network of {view.mesh}: "
        f'accept there iifname "{pattern}" oifname "{pattern}" in any connection state, as these packets are untracked'
    )


def one_way_fault(chain: ForwardChain, way: tuple[str, str]) -> str:
    """Return a sentence on a foreign chain that lets the mesh's packets through in one direction only."""
    entry, leaves = (f'"{name}"' for name in way)
    return (
        f"the chain {printable(str(chain), MAX_CHAIN_NAME)} drops by default, and accepts packets from {leaves} to "
        f"{entry} and not the way back: accept there iifname {entry} oifname {leaves} too, in any connection state, as "
        "these packets are untracked"
    )


def legacy_fault(program: str, view: View) -> str:
    """Return a sentence on the chain of *program*, iptables-legacy or its IPv6 kin, that does the same."""
    pattern = f"{view.interfaces[0].name}+"
    return (
        f"the chain {_LEGACY_CHAIN} of {program} drops by default, and no rule there names an interface or network of "
        f"{view.mesh}: run {program} -I {_LEGACY_CHAIN} -i {pattern} -o {pattern} -j ACCEPT, and keep it over a reboot"
    )
