"""The nftables table by which a relay leaves the packets that it forwards within the mesh untracked.

The two directions of a connection may take different relays, such as while a link is down. A firewall on a relay that
tracks connections then sees half of them, and drops packets as invalid (nft(8), CT STATEMENT and notrack).

Only packets between two other nodes are untracked: they come in by an interface of the mesh, and both addresses belong
to the mesh. Packets from and to the relay itself stay tracked, and so do those of the subnets behind it, since a
gateway may translate addresses.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.policy import Network, Role
from saltext_wgmesh.core.model.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class NotrackTable:
    """The table of one mesh."""

    name: str
    rules: tuple[str, ...]
    """In order. Each carries the mark as its comment."""

    @property
    def mark(self) -> str:
        """The hash of the rules: a table with this comment in each rule is the right one."""
        return hashlib.sha256("\n".join(self.rules).encode()).hexdigest()[:16]

    def script(self) -> str:
        """Return the input of ``nft -f`` that replaces the table at once, whether there is one or not."""
        rules = "\n".join(f'    {rule} comment "{self.mark}"' for rule in self.rules)
        chain = f"  chain relayed {{\n    type filter hook prerouting priority raw; policy accept;\n{rules}\n  }}"
        return f"{removal_script(self.name)}table inet {self.name} {{\n{chain}\n}}\n"

    def is_in(self, listing: str) -> bool:
        """Return whether *listing*, the output of ``nft list table``, has all rules of this table, and no other."""
        return listing.count(f'comment "{self.mark}"') == len(self.rules) == listing.count("comment ")


@functools.lru_cache(maxsize=8)
def notrack_table(view: View) -> NotrackTable | None:
    """Return the table that *view* asks for; None on nodes that are no relays.

    It is cached, since the watcher asks again and again, and a relay may have ten thousand prefixes.
    """
    if view.role is not Role.RELAY or not view.forward:
        return None
    return NotrackTable(name=constants.nft_table(view.mesh), rules=tuple(_rules(view)))


def removal_script(name: str) -> str:
    """Return the input of ``nft -f`` that deletes the table *name*, whether there is one or not."""
    return f"table inet {name}\ndelete table inet {name}\n"


def _rules(view: View) -> Iterator[str]:
    interfaces = _listed(f'"{interface.name}"' for interface in view.interfaces)
    yield f"iifname != {interfaces} return"
    for family, word in ((4, "ip"), (6, "ip6")):
        own = [a for a in view.addresses if address_family(a) == family]
        within = _relayed_prefixes(view, family)
        if own and within:
            yield f"{word} daddr {_listed(own)} return"
            yield f"{word} saddr {_listed(within)} {word} daddr {_listed(within)} notrack"


def _relayed_prefixes(view: View, family: int) -> list[str]:
    """Return the networks, and the subnets that other nodes are gateways of: the relay has no Route to its own."""
    networks = [ip_network(n) for n in view.networks if address_family(n) == family]
    routed = {p for route in view.routes for p in route.prefixes if address_family(p) == family}
    subnets = sorted(p for p in routed - set(view.networks) if not _is_within(p, networks))
    return [*map(str, networks), *subnets]


def _is_within(prefix: str, networks: Iterable[Network]) -> bool:
    # All are of one family, and no subnet contains a network: one address of the prefix decides.
    address = ip_address(prefix.partition("/")[0])
    return any(address in network for network in networks)


def _listed(words: Iterable[str]) -> str:
    return f"{{ {', '.join(words)} }}"
