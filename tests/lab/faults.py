"""What breaks in real networks, made and ended at will. Nobody is told: no fault sends a packet or an ICMP error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .machine import Machine
from .underlay import FABRIC, Underlay

TABLE = "fault"
"""The nftables table that holds a machine's faults."""


@contextmanager
def unplugged(underlay: Underlay, name: str) -> Iterator[None]:
    """All cables of the machine are out; for everybody else this is a power cut."""
    _plug(underlay, name, "down")
    try:
        yield
    finally:
        _plug(underlay, name, "up")


@contextmanager
def deaf(underlay: Underlay, listener: str, speaker: str) -> Iterator[None]:
    """WireGuard's packets from *speaker* do not arrive at *listener*; the other direction works."""
    source = underlay.topology.machine(speaker).address
    rule = f"type filter hook prerouting priority -400; ip saddr {source} meta l4proto udp drop;"
    with _rules(underlay[listener], rule):
        yield


@contextmanager
def cut(underlay: Underlay, a: str, b: str) -> Iterator[None]:
    """The same in both directions."""
    with deaf(underlay, a, b), deaf(underlay, b, a):
        yield


@contextmanager
def not_forwarding(machine: Machine) -> Iterator[None]:
    """The machine answers for itself and forwards nothing."""
    machine.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    try:
        yield
    finally:
        machine.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


@contextmanager
def forwarding_dropped(machine: Machine) -> Iterator[None]:
    """The same by a firewall."""
    with _rules(machine, "type filter hook forward priority 0; policy drop;"):
        yield


@contextmanager
def _rules(machine: Machine, chain: str) -> Iterator[None]:
    machine.run("nft", "-f", "-", stdin=f"table inet {TABLE} {{ chain drops {{ {chain} }} }}\n")
    try:
        yield
    finally:
        machine.run("nft", "delete", "table", "inet", TABLE)


def _plug(underlay: Underlay, name: str, state: str) -> None:
    number = next(i for i, spec in enumerate(underlay.topology.machines) if spec.name == name)
    for port in range(len(underlay.topology.machine(name).ports)):
        underlay[FABRIC].run("ip", "link", "set", f"m{number}p{port}", state)
