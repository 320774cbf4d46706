"""Devices whose addresses other hosts can reach, told from those that lead into this host or into another overlay.

Containers, virtual machines and VPNs give a host addresses that mean something else, or nothing, on another host.
Docker's ``172.17.0.1`` is the same address on each host that has it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from saltext_wgmesh.core.device.ip_cli import IpLink

_OVERLAY_KINDS = frozenset(
    ("amneziawg", "geneve", "ip6tnl", "ipip", "ovpn", "ovpn-dco", "tun", "vti", "vti6", "vxlan", "wireguard", "xfrm")
)
"""Tunnels into other overlays (IFLA_INFO_KIND): VPNs, and networks of containers that span hosts."""
_GUEST_KINDS = frozenset(("dummy", "tun", "veth"))
"""A bridge with ports of these kinds alone leads to guests of this host."""
_GUEST_NAMES = re.compile(
    r"antrea-.*|br-[0-9a-f]{12}|cali.*|cbr\d+|cilium_.*|cni.*|docker.*|flannel.*|incusbr\d+|kube-.*|lxcbr\d+|lxdbr\d+|"
    r"nodelocaldns|ovn-k8s-.*|podman\d+|tailscale\d+|vethwe-.*|virbr\d+|vnet\d+|weave|wg\d+|zt[a-z0-9]{8,}"
)
"""Names that Docker, libvirt, CNI plugins and VPNs give their devices, where the kind alone does not tell."""


def underlay_devices(links: Mapping[str, IpLink], default_devices: Collection[str]) -> dict[str, IpLink]:
    """Return those of *links* whose addresses may be endpoints, by name.

    Devices of Docker, libvirt, CNI plugins and VPNs are left out. A bridge counts if the host itself is in its network:
    one of its ports leads out of the host, or a default route goes over it, as *default_devices* say.
    """
    return {name: link for name, link in links.items() if _leads_outside(link, links, default_devices)}


def _leads_outside(link: IpLink, links: Mapping[str, IpLink], default_devices: Collection[str]) -> bool:
    if link.kind in _OVERLAY_KINDS or _GUEST_NAMES.fullmatch(link.name):
        return False
    if link.kind != "bridge" or link.name in default_devices:
        return True
    ports = [other for other in links.values() if other.master == link.name]
    return any(port.kind not in _GUEST_KINDS for port in ports)
