"""Gather the facts that this node publishes to the master. They hold no secret, and grant the node nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_interface
from typing import Any

from saltext_wgmesh.core.device.ip_cli import IpLink, parse_defaults, parse_links
from saltext_wgmesh.core.inputs.facts_format import MAX_ADDRESSES, MAX_NETWORKS, facts_as_dict
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.minion.state import keys, store
from saltext_wgmesh.minion.system.host import Host


def gather(host: Host, node: str, salt_key: str) -> dict[str, Any]:
    """Return the facts as they are published in the mine. HostError if the node has no key yet."""
    public_key = keys.public_key(host)
    if public_key is None:
        raise keys.missing_key(host)
    links = _links(host)
    orphaned_key = keys.orphaned_key(host)
    found = Facts(
        node=node,
        public_key=orphaned_key or public_key,
        salt_key=salt_key,
        underlay=_underlay(host, links),
        networks=_networks(links.values())[:MAX_NETWORKS],
        ipv6=host.has_ipv6,
        # The kernel still runs an orphaned key. The key in the file is the next one, until the view activates it.
        next_key=public_key if orphaned_key else keys.next_key(host),
    )
    return {**facts_as_dict(found), "observed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def underlay(host: Host) -> tuple[str, ...]:
    """Return the underlay addresses in the facts: they may change while the node runs."""
    return _underlay(host, _links(host))


def _links(host: Host) -> dict[str, IpLink]:
    """Return all network interfaces that belong to no mesh."""
    own = store.owned_interfaces(host)
    return {n: link for n, link in parse_links(host.run("ip", "-json", "address")).items() if n not in own}


def _underlay(host: Host, links: dict[str, IpLink]) -> tuple[str, ...]:
    """Return the addresses at which others may reach this node: those of the default routes first, then by number."""
    found = (address for link in links.values() for address in _bare(link.addresses))
    rest = sorted(found, key=lambda a: (address_family(a), int(ip_address(a))))
    return tuple(dict.fromkeys((*_default_sources(host, links), *rest)))[:MAX_ADDRESSES]


def _default_sources(host: Host, links: dict[str, IpLink]) -> Iterator[str]:
    for family, device, source in parse_defaults(host.run("ip", "-json", "route", "show", "table", "all", "default")):
        candidates = _bare(links[device].addresses) if device in links else []
        same_family = [a for a in candidates if address_family(a) == family]
        if source in candidates:
            yield str(source)
        elif same_family:
            yield same_family[0]


def _networks(links: Iterable[IpLink]) -> tuple[str, ...]:
    found = {ip_interface(a).network for link in links for a in link.addresses}
    return tuple(str(n) for n in sorted(found, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def _bare(addresses: Sequence[str]) -> list[str]:
    return [a.partition("/")[0] for a in addresses]
