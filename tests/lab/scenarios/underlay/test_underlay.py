"""The network matches its topology."""

from __future__ import annotations

import subprocess

import pytest

from ...demo.topology import DEMO
from ...lab import Lab
from ...machine import Machine
from ...overlay import Stream, trips
from ...wait import wait_until

TOPOLOGY = DEMO

RELAYS = {"relay-fra1": "203.0.113.10", "relay-fra2": "203.0.113.11", "relay-nyc1": "203.0.113.74"}
MASTER = "198.51.100.10"


def reaches(machine: Machine, address: str) -> bool:
    return ", 1 received" in machine.run("ping", "-n", "-c1", "-W1", address, check=False)


def test_machines_are_isolated(lab: Lab):
    """Each machine has its own host name, process table and empty /run."""
    for name in DEMO.minions:
        assert lab.underlay[name].run("hostname").strip() == name
        assert lab.underlay[name].run("sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline").strip() == "sleep infinity"
        assert not lab.underlay[name].run("sh", "-c", "ls /run/wireguard 2>/dev/null || true")


@pytest.mark.parametrize("name", DEMO.minions)
def test_every_node_reaches_master_and_relays(lab: Lab, name: str):
    """Every node reaches the master and all relays, through one router or two."""
    others = [a for relay, a in RELAYS.items() if relay != name]
    assert all(reaches(lab.underlay[name], a) for a in [MASTER, *others])


@pytest.mark.parametrize(
    ("source", "address", "router"),
    [
        ("app1", "10.1.1.21", "198.51.100.1"),
        ("relay-nyc1", "10.1.1.21", "198.51.100.1"),
        ("web1", "10.2.2.31", "198.51.100.2"),
        ("master", "192.168.1.50", "198.51.100.3"),
    ],
    ids=["leaf to leaf", "relay to leaf", "leaf to leaf, other direction", "master to laptop"],
)
def test_hidden_machine_is_unreachable_from_outside(lab: Lab, source: str, address: str, router: str):
    """No machine outside reaches a hidden one, without a route and with one: the filter of the router drops it."""
    assert not reaches(lab.underlay[source], address)
    own = {"app1": "nyc-router", "relay-nyc1": "nyc-router", "web1": "fra-router"}.get(source, source)
    route = (f"{address}/32", "via", router)
    lab.underlay[own].run("ip", "route", "add", *route)
    try:
        assert not reaches(lab.underlay[source], address)
    finally:
        lab.underlay[own].run("ip", "route", "del", *route)
    drops = [m for m in DEMO.machines if m.nat and m.address == router]
    assert "packets 0 " not in lab.underlay[drops[0].name].run("nft", "list", "chain", "ip", "lab", "passing")


def test_machines_of_a_site_reach_each_other(lab: Lab):
    """Machines of a site and its relays reach each other in both directions."""
    for a, b in (("web1", "web2"), ("web1", "relay-fra1"), ("app1", "gw1"), ("gw1", "relay-nyc1")):
        assert reaches(lab.underlay[a], DEMO.machine(b).address), (a, b)
        assert reaches(lab.underlay[b], DEMO.machine(a).address), (b, a)


def test_hidden_machines_are_masqueraded(lab: Lab):
    """The master sees a packet of the laptop from the router's address, not from the laptop's own."""
    heard = lab.underlay["master"].spawn(
        "python3", "-c", "import socket; s = socket.socket(2, 2); s.bind(('', 9)); print(s.recvfrom(9)[1][0])"
    )
    wait_until(lambda: ":9 " in lab.underlay["master"].run("ss", "-Hlun"), 10, "the listener")
    lab.underlay["laptop"].run("bash", "-c", f"echo hello > /dev/udp/{MASTER}/9")
    assert heard.communicate(timeout=10)[0].strip() == "198.51.100.3"


def test_printer_is_reached_by_gateway_only(lab: Lab):
    """Only the gateway reaches the printer, since it forwards nothing before the mesh turns forwarding on."""
    assert reaches(lab.underlay["gw1"], "192.168.50.20")
    assert not reaches(lab.underlay["printer"], "10.2.2.31")
    assert not reaches(lab.underlay["app1"], "192.168.50.20")


def test_prober_finds_routers(lab: Lab):
    """A measured path lists its machines in order. A missing answer is no round trip."""
    seen = trips(lab.underlay, {"laptop": {"relay-nyc1": ["203.0.113.74"], "web1": ["10.1.1.21"]}})
    assert [(t.target, t.arrived) for t in seen] == [("relay-nyc1", True), ("web1", False)]
    assert seen[0].path == ("laptop", "home-router", "nyc-router", "relay-nyc1")


def test_stream_measures_length_of_cut(lab: Lab):
    """A stream without a cut loses no packet. A cut of 0.3 s is at least a gap of 0.25 s."""
    cut = lab.underlay["relay-fra1"]
    with Stream(lab.underlay["laptop"], ["203.0.113.10", "203.0.113.11"]) as stream:
        for deadline in (0.3, 0.6):
            subprocess.run(["sleep", "0.3"], check=True)
            cut.run("ip", "link", "set", "eth0", "down" if deadline == 0.3 else "up")
        cut.run("ip", "route", "add", "default", "via", "203.0.113.1")
        wait_until(lambda: reaches(lab.underlay["laptop"], "203.0.113.10"), 10, "the relay to be back")
    first, second = stream.losses
    assert (second.lost, second.gaps) == (0, ())
    assert first.lost > 10
    assert sum(length for _, length in first.gaps) > 0.25


def test_machines_share_name_of_interface(lab: Lab):
    """Two machines have an interface wg0 each. A hand-made link between them forwards packets, also through the NAT."""
    ends = {"laptop": "10.100.0.1", "relay-fra1": "10.100.0.2"}
    public = {}
    for name, address in ends.items():
        machine = lab.underlay[name]
        private = machine.run("wg", "genkey")
        public[name] = machine.run("wg", "pubkey", stdin=private).strip()
        machine.run("sh", "-c", "ip link add wg0 type wireguard 2>/dev/null || wireguard-go wg0")
        machine.run("wg", "set", "wg0", "listen-port", "51820", "private-key", "/dev/stdin", stdin=private)
        machine.run("ip", "address", "add", f"{address}/24", "dev", "wg0")
        machine.run("ip", "link", "set", "wg0", "up")
    # The answering side first: an initiation from an unknown peer is dropped and not repeated for 5 s.
    lab.underlay["relay-fra1"].run("wg", "set", "wg0", "peer", public["laptop"], "allowed-ips", "10.100.0.1/32")
    there = ("endpoint", "203.0.113.10:51820", "allowed-ips", "10.100.0.0/24")
    lab.underlay["laptop"].run("wg", "set", "wg0", "peer", public["relay-fra1"], *there)
    assert reaches(lab.underlay["laptop"], "10.100.0.2")
    assert reaches(lab.underlay["relay-fra1"], "10.100.0.1")
    assert "198.51.100.3:" in lab.underlay["relay-fra1"].run("wg", "show", "wg0", "endpoints")
