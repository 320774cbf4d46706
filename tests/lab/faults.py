"""Faults of real networks, each a context. A fault is silent: it sends no packet and no ICMP error."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .machine import Machine
from .processes import kill, tagged
from .underlay import FABRIC, Underlay

_HOOK_IN = "type filter hook prerouting priority -400;"
# After routing: here the sender gets no error for a dropped packet.
_HOOK_OUT = "type filter hook postrouting priority 400;"
_UDP = "meta l4proto udp drop;"
_number = itertools.count()


@contextmanager
def unplugged(underlay: Underlay, *names: str) -> Iterator[None]:
    """Unplug all cables of the machines. For all other machines this is a power cut."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_pulled(underlay, name, *range(len(underlay.topology.machine(name).ports))))
        yield


@contextmanager
def partitioned(underlay: Underlay, router: str) -> Iterator[None]:
    """Unplug the first port of *router*, towards all other networks. Machines behind it still reach each other."""
    with _pulled(underlay, router, 0):
        yield


@contextmanager
def rebooting(underlay: Underlay, router: str) -> Iterator[None]:
    """Unplug a router. Afterwards it has lost all its tracked connections."""
    with unplugged(underlay, router):
        yield
        underlay[router].run("conntrack", "--flush")


@contextmanager
def deaf(underlay: Underlay, listener: str, speaker: str) -> Iterator[None]:
    """Drop UDP from *speaker*, which is behind no NAT, at *listener*. The other direction works."""
    with _rules(underlay[listener], f"{_HOOK_IN} ip saddr {underlay.topology.machine(speaker).address} {_UDP}"):
        yield


@contextmanager
def unheard(underlay: Underlay, speaker: str, listener: str) -> Iterator[None]:
    """Drop UDP from *speaker* to *listener*, which is behind no NAT, at *speaker*. The other direction works."""
    with _rules(underlay[speaker], f"{_HOOK_OUT} ip daddr {underlay.topology.machine(listener).address} {_UDP}"):
        yield


@contextmanager
def cut(underlay: Underlay, node: str, other: str) -> Iterator[None]:
    """Drop all packets between *node*, or machines behind it, and *other*, which is behind no NAT."""
    where = underlay.topology.machine(other).address
    with _rules(underlay[node], f"{_HOOK_IN} ip saddr {where} drop;", f"{_HOOK_OUT} ip daddr {where} drop;"):
        yield


@contextmanager
def cut_all(underlay: Underlay, node: str, *others: str) -> Iterator[None]:
    """Drop all packets between *node*, which is behind no NAT, and each of *others*."""
    with ExitStack() as stack:
        for other in others:
            stack.enter_context(cut(underlay, other, node))
        yield


def kill_wireguard(machine: Machine) -> None:
    """Remove all WireGuard devices of the machine. A userspace process is killed, without a chance to clean up."""
    for process in tagged(machine.tag):
        if process.machine == machine.name and process.command.startswith("wireguard-go"):
            kill(process.pid, signal.SIGKILL)
    for link in filter(None, machine.json("ip", "-j", "link", "show", "type", "wireguard")):
        machine.run("ip", "link", "del", link["ifname"])


@contextmanager
def not_forwarding(machine: Machine) -> Iterator[None]:
    """Switch forwarding off. The machine still answers for itself."""
    machine.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    try:
        yield
    finally:
        machine.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


@contextmanager
def forwarding_dropped(machine: Machine) -> Iterator[None]:
    """Drop forwarded packets by a firewall. The machine still answers for itself."""
    with _rules(machine, "type filter hook forward priority 0; policy drop;"):
        yield


@contextmanager
def _rules(machine: Machine, *chains: str) -> Iterator[None]:
    # One machine may have several faults at once.
    table = f"fault{next(_number)}"
    written = "".join(f"chain drops{i} {{\n{chain}\n}}\n" for i, chain in enumerate(chains))
    machine.run("nft", "-f", "-", stdin=f"table inet {table} {{\n{written}}}\n")
    try:
        yield
    finally:
        machine.run("nft", "delete", "table", "inet", table)


@contextmanager
def _pulled(underlay: Underlay, name: str, *ports: int) -> Iterator[None]:
    number = next(i for i, spec in enumerate(underlay.topology.machines) if spec.name == name)
    cables = [f"m{number}p{port}" for port in ports]
    for cable in cables:
        underlay[FABRIC].run("ip", "link", "set", cable, "down")
    try:
        yield
    finally:
        for cable in cables:
            underlay[FABRIC].run("ip", "link", "set", cable, "up")
