"""What this node can say of itself to the master. Nothing in it is secret, and nothing grants it anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_interface
from typing import Any

from saltext_wgmesh.core.device import family_of
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.facts import MOST_ADDRESSES, MOST_NETWORKS, as_dict
from saltext_wgmesh.core.iptext import Link, parse_defaults, parse_links
from saltext_wgmesh.core.types import Facts
from saltext_wgmesh.minion import keys, store
from saltext_wgmesh.minion.host import Host


def gather(host: Host, node: str, salt_key: str) -> dict[str, Any]:
    """The facts in the shape in which they travel; HostError if the node has no key yet."""
    public_key = keys.public_key(host)
    if public_key is None:
        raise HostError(f"{host.key_file} is not there: 'salt-call state.apply wgmesh' makes a key and publishes it")
    links = _links(host)
    lost = keys.lost(host)
    found = Facts(
        node=node,
        public_key=lost or public_key,
        salt_key=salt_key,
        underlay=_underlay(host, links),
        networks=_networks(links.values())[:MOST_NETWORKS],
        ipv6=host.has_ipv6,
        # Who lost a key runs it as long as the kernel does; its file holds the next.
        next_key=public_key if lost else keys.next_key(host),
    )
    return {**as_dict(found), "observed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def underlay(host: Host) -> tuple[str, ...]:
    """Those of the facts that may change under a running node: the addresses at which others may reach it."""
    return _underlay(host, _links(host))


def _links(host: Host) -> dict[str, Link]:
    """All that are not of a mesh."""
    own = store.owned_interfaces(host)
    return {n: link for n, link in parse_links(host.run("ip", "-json", "address")).items() if n not in own}


def _underlay(host: Host, links: dict[str, Link]) -> tuple[str, ...]:
    """Addresses at which others may reach this node: those of the default routes first, then by number."""
    found = (address for link in links.values() for address in _bare(link.addresses))
    rest = sorted(found, key=lambda a: (family_of(a), int(ip_address(a))))
    return tuple(dict.fromkeys((*_default_sources(host, links), *rest)))[:MOST_ADDRESSES]


def _default_sources(host: Host, links: dict[str, Link]) -> Iterator[str]:
    for family, device, source in parse_defaults(host.run("ip", "-json", "route", "show", "table", "all", "default")):
        candidates = _bare(links[device].addresses) if device in links else []
        same_family = [a for a in candidates if family_of(a) == family]
        if source in candidates:
            yield str(source)
        elif same_family:
            yield same_family[0]


def _networks(links: Iterable[Link]) -> tuple[str, ...]:
    found = {ip_interface(a).network for link in links for a in link.addresses}
    return tuple(str(n) for n in sorted(found, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def _bare(addresses: Sequence[str]) -> list[str]:
    return [a.partition("/")[0] for a in addresses]
