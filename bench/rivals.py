"""Other systems in the two sites, with their own timers: Nebula, tinc, and babeld over WireGuard."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from bench.twosites import LEAVES, MASTER, NODES, OVERLAY, RELAYS, TOPOLOGY, reaches
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.wait import wait_until

ADDRESSES = {name: f"10.99.0.{number}" for number, name in enumerate((*NODES, MASTER), 1)}
BACK = 300
"""Seconds in which a system must be restored, once the failure is over."""


class Rival:
    """Base of all other systems: fixed addresses, and no master that reacts."""

    name = ""
    period = 0.0

    def addresses(self, lab: Lab) -> dict[str, str]:
        return {leaf: ADDRESSES[leaf] for leaf in LEAVES}

    def noticed(self, lab: Lab) -> bool:
        return True

    def ready(self, lab: Lab) -> None:
        """Wait until each leaf has its link to each relay, and the leaves reach each other."""
        pairs = [(leaf, relay) for leaf in LEAVES for relay in RELAYS]
        wait_until(lambda: all(self.linked(lab, *pair) for pair in pairs), BACK, f"{self.name}'s links", every=1)
        ways = [*pairs, LEAVES, LEAVES[::-1]]
        wait_until(lambda: all(reaches(lab, a, ADDRESSES[b]) for a, b in ways), BACK, f"{self.name}'s nodes", every=1)

    def linked(self, lab: Lab, leaf: str, relay: str) -> bool:
        """Return whether the leaf has a link of its own to the relay."""
        return True


class Nebula(Rival):
    """Nebula, with both relays as its relays. The lighthouse is a machine that does not fail."""

    name = "Nebula"
    period = 10.0

    def start(self, lab: Lab) -> None:
        folder = lab.folder / "nebula"
        folder.mkdir()
        lighthouse = lab.underlay[MASTER]
        ca = ("-ca-crt", f"{folder}/ca.crt", "-ca-key", f"{folder}/ca.key")
        lighthouse.run("nebula-cert", "ca", "-name", "bench", "-out-crt", ca[1], "-out-key", ca[3])
        for node in (*NODES, MASTER):
            own = ("-out-crt", f"{folder}/{node}.crt", "-out-key", f"{folder}/{node}.key")
            lighthouse.run("nebula-cert", "sign", *ca, "-name", node, "-ip", f"{ADDRESSES[node]}/24", *own)
            path = folder / f"{node}.yml"
            path.write_text(json.dumps(self._config(folder, node)))
            lab.underlay[node].spawn("nebula", "-config", str(path), log="nebula.log")

    def _config(self, folder: Path, node: str) -> dict[str, object]:
        is_lighthouse = node == MASTER
        return {
            "pki": {"ca": f"{folder}/ca.crt", "cert": f"{folder}/{node}.crt", "key": f"{folder}/{node}.key"},
            "static_host_map": {ADDRESSES[MASTER]: [f"{TOPOLOGY.machine(MASTER).address}:4242"]},
            "lighthouse": {
                "am_lighthouse": is_lighthouse,
                "hosts": [] if is_lighthouse else [ADDRESSES[MASTER]],
            },
            "listen": {"host": "0.0.0.0", "port": 4242},
            "relay": {
                "am_relay": node in RELAYS,
                "use_relays": True,
                "relays": [ADDRESSES[relay] for relay in RELAYS] if node in LEAVES else [],
            },
            "tun": {"dev": "nebula0"},
            "firewall": {way: [{"port": "any", "proto": "any", "host": "any"}] for way in ("outbound", "inbound")},
        }


class Tinc(Rival):
    """tinc: every node connects to both relays, and the relays to each other."""

    name = "tinc"
    # PingInterval, tinc.conf(5).
    period = 60.0

    def start(self, lab: Lab) -> None:
        hosts = lab.folder / "tinc-hosts"
        hosts.mkdir()
        for node in NODES:
            key = f"{lab.underlay[node].folder}/tinc.key"
            lab.underlay[node].run("openssl", "genrsa", "-traditional", "-out", key, "2048")
            public = lab.underlay[node].run("openssl", "rsa", "-in", key, "-RSAPublicKey_out")
            where = f"Address = {TOPOLOGY.machine(node).address}\n" if node in RELAYS else ""
            (hosts / node).write_text(f"{where}Subnet = {ADDRESSES[node]}/32\n{public}")
        for node in NODES:
            machine = lab.underlay[node]
            folder = machine.folder / "tinc"
            folder.mkdir()
            (folder / "hosts").symlink_to(hosts)
            peers = "".join(f"ConnectTo = {relay}\n" for relay in RELAYS if relay != node)
            (folder / "tinc.conf").write_text(
                f"Name = {node}\nInterface = tinc0\nPrivateKeyFile = {machine.folder}/tinc.key\n{peers}"
            )
            up = folder / "tinc-up"
            up.write_text(f"#!/bin/sh\nip link set tinc0 up\nip address add {ADDRESSES[node]}/24 dev tinc0\n")
            up.chmod(0o755)
            machine.spawn("tincd", "-c", str(folder), "-D", "-d1", "--pidfile=/run/tinc.pid", log="tinc.log")

    def linked(self, lab: Lab, leaf: str, relay: str) -> bool:
        there = f"{TOPOLOGY.machine(relay).address}:655"
        return bool(lab.underlay[leaf].run("ss", "-Htn", "state", "established", "dst", there).strip())


class Babel(Rival):
    """babeld over one WireGuard interface per link, with all addresses as allowed-ips. babeld chooses the routes."""

    def __init__(self, hello: float | None) -> None:
        self.name = "babeld over WireGuard" + (f", hello {hello:g} s" if hello else "")
        # The default of a wired interface and of a tunnel, babeld(8).
        self.period = hello or 4.0
        self._hello = hello

    def start(self, lab: Lab) -> None:
        links = [*((relay, leaf) for relay in RELAYS for leaf in LEAVES), RELAYS]
        keys = {node: base64.b64encode(os.urandom(32)).decode() for node in NODES}
        public = {node: lab.underlay[MASTER].run("wg", "pubkey", stdin=keys[node]).strip() for node in NODES}
        for node in NODES:
            lab.underlay[node].run("ip", "address", "add", f"{ADDRESSES[node]}/32", "dev", "lo")
        for number, (relay, other) in enumerate(links):
            port = 51820 + number
            for node, peer, endpoint in ((relay, other, None), (other, relay, TOPOLOGY.machine(relay).address)):
                self._make_device(lab.underlay[node], f"wg-{peer}", node)
                at = ("endpoint", f"{endpoint}:{port}", "persistent-keepalive", "25") if endpoint else ()
                own = ("private-key", "/dev/stdin", *(() if endpoint else ("listen-port", str(port))))
                words = ("peer", public[peer], "allowed-ips", "0.0.0.0/0,::/0", *at)
                lab.underlay[node].run("wg", "set", f"wg-{peer}", *own, *words, stdin=keys[node])
        for node in NODES:
            machine = lab.underlay[node]
            machine.sysctl(net__ipv4__ip_forward=int(node in RELAYS))
            hello = f" hello-interval {self._hello:g}" if self._hello else ""
            lines = [f"interface wg-{peer} type tunnel{hello}" for link in links if node in link for peer in link]
            lines = [line for line in lines if f"wg-{node} " not in line]
            lines += [f"redistribute local ip {OVERLAY}", "redistribute local deny"]
            path = machine.folder / "babeld.conf"
            path.write_text("".join(f"{line}\n" for line in lines))
            files = ("-I", "/run/babeld.pid", "-S", "/run/babeld.state")
            machine.spawn("babeld", *files, "-c", str(path), log="babeld.log")

    def linked(self, lab: Lab, leaf: str, relay: str) -> bool:
        # babeld keeps a lost route as "unreachable" for a while, and ping reports that as an error.
        text = lab.underlay[leaf].run("ip", "-json", "route", "get", ADDRESSES[relay], check=False)
        return bool(text.strip()) and json.loads(text)[0].get("dev") == f"wg-{relay}"

    @staticmethod
    def _make_device(machine: Machine, device: str, node: str) -> None:
        made = 'ip link add "$1" type wireguard 2>/dev/null || wireguard-go "$1" >/dev/null 2>&1'
        machine.run("sh", "-c", made, "sh", device)
        number = ADDRESSES[node].rpartition(".")[2]
        machine.run("ip", "address", "add", f"{ADDRESSES[node]}/32", "dev", device)
        machine.run("ip", "address", "add", f"fe80::{number}/64", "dev", device, "nodad")
        machine.run("ip", "link", "set", device, "mtu", "1420", "up")
