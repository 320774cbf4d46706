"""What breaks in real networks, made and ended at will. Nobody is told: no fault sends a packet or an ICMP error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .machine import Machine
from .underlay import FABRIC, Underlay

TABLE = "fault"
"""The nftables table that holds a machine's faults."""
_HOOK_IN = "type filter hook prerouting priority -400;"
# After routing, where a drop is not told to the sender.
_HOOK_OUT = "type filter hook postrouting priority 400;"
_UDP = "meta l4proto udp drop;"


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
    """UDP from *speaker*, which is behind no NAT, does not arrive at *listener*; the other direction works."""
    with _rules(underlay[listener], f"{_HOOK_IN} ip saddr {underlay.topology.machine(speaker).address} {_UDP}"):
        yield


@contextmanager
def unheard(underlay: Underlay, speaker: str, listener: str) -> Iterator[None]:
    """UDP from *speaker* does not arrive at *listener*, which is behind no NAT; the other direction works."""
    with _rules(underlay[speaker], f"{_HOOK_OUT} ip daddr {underlay.topology.machine(listener).address} {_UDP}"):
        yield


@contextmanager
def cut(underlay: Underlay, node: str, other: str) -> Iterator[None]:
    """Nothing passes between *node*, or those behind it, and *other*, which is behind no NAT."""
    where = underlay.topology.machine(other).address
    with _rules(underlay[node], f"{_HOOK_IN} ip saddr {where} drop;", f"{_HOOK_OUT} ip daddr {where} drop;"):
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
def _rules(machine: Machine, *chains: str) -> Iterator[None]:
    written = "".join(f"chain drops{i} {{\n{chain}\n}}\n" for i, chain in enumerate(chains))
    machine.run("nft", "-f", "-", stdin=f"table inet {TABLE} {{\n{written}}}\n")
    try:
        yield
    finally:
        machine.run("nft", "delete", "table", "inet", TABLE)


def _plug(underlay: Underlay, name: str, state: str) -> None:
    number = next(i for i, spec in enumerate(underlay.topology.machines) if spec.name == name)
    for port in range(len(underlay.topology.machine(name).ports)):
        underlay[FABRIC].run("ip", "link", "set", f"m{number}p{port}", state)
