"""Gather the facts that this node publishes to the master. They hold no secret, and grant the node nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any

from saltext_wgmesh.core.device.ip_cli import IpLink, parse_defaults, parse_links
from saltext_wgmesh.core.device.underlay_devices import underlay_devices
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
    network = _Network.of(host)
    orphaned_key = keys.orphaned_key(host)
    found = Facts(
        node=node,
        public_key=orphaned_key or public_key,
        salt_key=salt_key,
        # One entry too many has the master refuse the list by name: a check of a part would prove nothing.
        underlay=network.addresses()[: MAX_ADDRESSES + 1],
        networks=_merged(network.links.values())[: MAX_NETWORKS + 1],
        lans=_merged(network.devices.values())[: MAX_NETWORKS + 1],
        ipv6=host.has_ipv6,
        # The kernel still runs an orphaned key. The key in the file is the next one, until the view activates it.
        next_key=public_key if orphaned_key else keys.next_key(host),
    )
    return {**facts_as_dict(found), "observed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def underlay(host: Host) -> tuple[str, ...]:
    """Return the underlay addresses in the facts: they may change while the node runs."""
    return _Network.of(host).addresses()[: MAX_ADDRESSES + 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """The network of this node, without the interfaces of meshes."""

    links: dict[str, IpLink]
    devices: dict[str, IpLink]
    """Those whose addresses other nodes may reach."""
    defaults: tuple[tuple[int, str, str | None], ...]
    """Family, device and source of the default routes."""

    @classmethod
    def of(cls, host: Host) -> _Network:
        """Return the network of *host* as it is now."""
        own = store.owned_interfaces(host)
        every = parse_links(host.run("ip", "-json", "-details", "address"))
        links = {name: link for name, link in every.items() if name not in own}
        defaults = parse_defaults(host.run("ip", "-json", "route", "show", "table", "all", "default"))
        devices = underlay_devices(links, {device for _, device, _ in defaults})
        return cls(links=links, devices=devices, defaults=defaults)

    def addresses(self) -> tuple[str, ...]:
        """Return the addresses at which others may reach this node: default routes' first, then by number."""
        found = (address for link in self.devices.values() for address in _bare(link.addresses))
        rest = sorted(found, key=lambda a: (address_family(a), int(ip_address(a))))
        return tuple(dict.fromkeys((*self._default_sources(), *rest)))

    def _default_sources(self) -> Iterator[str]:
        for family, device, source in self.defaults:
            candidates = _bare(self.devices[device].addresses) if device in self.devices else []
            same_family = [a for a in candidates if address_family(a) == family]
            if source in candidates:
                yield str(source)
            elif same_family:
                yield same_family[0]


def _merged(links: Iterable[IpLink]) -> tuple[str, ...]:
    """Return the prefixes of *links* as the fewest that have the same addresses, IPv4 first.

    Loopback and link-local prefixes are left out: each node has them, and no mesh may use them.
    """
    every = {ip_network(n) for link in links for n in link.networks}
    found = [n for n in every if not n.is_loopback and not n.is_link_local]
    four = collapse_addresses(n for n in found if isinstance(n, IPv4Network))
    six = collapse_addresses(n for n in found if isinstance(n, IPv6Network))
    return tuple(str(n) for n in (*four, *six))


def _bare(addresses: Sequence[str]) -> list[str]:
    return [a.partition("/")[0] for a in addresses]
