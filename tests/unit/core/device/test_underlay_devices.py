"""Addresses of devices that lead into the host itself or into another overlay are no endpoints."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.device.ip_cli import IpLink
from saltext_wgmesh.core.device.underlay_devices import underlay_devices


def link(name: str, kind: str | None = None, master: str | None = None) -> IpLink:
    return IpLink(name=name, mtu=1500, up=True, addresses=(), kind=kind, master=master)


def kept(*links: IpLink, default: str = "") -> set[str]:
    return set(underlay_devices({one.name: one for one in links}, {default}))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("docker0", "bridge"),
        ("br-0123456789ab", "bridge"),
        ("docker_gwbridge", "bridge"),
        ("virbr0", "bridge"),
        ("podman1", "bridge"),
        ("cni0", "bridge"),
        ("lxcbr0", "bridge"),
        ("weave", "bridge"),
        ("mybridge", "bridge"),
        ("kube-ipvs0", "dummy"),
        ("nodelocaldns", "dummy"),
        ("cilium_host", "veth"),
        ("cali12ab", "veth"),
        ("flannel.1", "vxlan"),
        ("tunl0", "ipip"),
        ("tun7", "tun"),
        ("tailscale0", "tun"),
        ("ztabcdefgh", "tun"),
        ("office", "wireguard"),
        ("ipsec0", "xfrm"),
        ("vti1", "vti"),
    ],
)
def test_device_of_guests_or_vpn_is_left_out(name: str, kind: str) -> None:
    """By its kind, whatever it is called; by its name where the kind is that of a real uplink too."""
    assert kept(link(name, kind), link("eth0")) == {"eth0"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("eth0", None), ("eth0", "veth"), ("bond0", "bond"), ("lan.7", "vlan"), ("ppp0", "ppp"), ("lo", None)],
)
def test_device_that_leads_outside_is_kept(name: str, kind: str | None) -> None:
    """Hardware, and virtual devices over it; in a container the uplink is a veth."""
    assert kept(link(name, kind)) == {name}


def test_bridge_counts_with_a_port_that_leads_outside() -> None:
    """A host of virtual machines has its own address on the bridge of its uplink."""
    guests = link("tap0", "tun", "br0"), link("veth3", "veth", "br0"), link("eth9", None, "br1")
    assert "br0" not in kept(link("br0", "bridge"), *guests)
    assert "br0" in kept(link("br0", "bridge"), *guests, link("bond0", "bond", "br0"))
    assert "br0" in kept(link("br0", "bridge"), *guests, default="br0")
    assert "docker0" not in kept(link("docker0", "bridge"), default="docker0")
