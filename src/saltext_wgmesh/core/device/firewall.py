"""The obstacles to forwarding on a relay: kernel settings, and chains of other programs that drop by policy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.untrusted import printable
from saltext_wgmesh.core.model.view import View

MAX_CHAIN_NAME = 200
"""Characters of the name of a chain that a message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppingChain:
    """A base chain of the forward hook whose policy is to drop."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def dropping_chains(listing: str) -> tuple[DroppingChain, ...]:
    """Return the chains of *listing*, the output of ``nft -j list chains``, that drop forwarded packets by policy.

    Raises ValueError if it is no such output.
    """
    return tuple(
        DroppingChain(family=str(chain["family"]), table=str(chain.get("table")), name=str(chain.get("name")))
        for entry in _entries(listing)
        if isinstance(chain := entry.get("chain"), dict)
        and chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain.get("family") in ("ip", "ip6", "inet")
    )


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
    words = {word.strip("{},") for word in listing.split()}
    interfaces = (f'"{pattern}"' for interface in view.interfaces for pattern in _patterns(interface.name))
    return not words.isdisjoint({*interfaces, *view.networks})


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


def chain_fault(chain: DroppingChain, view: View) -> str:
    """Return a sentence on a foreign chain that drops what the node is to forward."""
    pattern = f"{view.interfaces[0].name}*"
    return (
        f"the chain {printable(str(chain), MAX_CHAIN_NAME)} drops by policy, and no rule of its table names an "
        f"interface or network of {view.mesh}: "
        f'accept there iifname "{pattern}" oifname "{pattern}" in any connection state, as these packets are untracked'
    )
