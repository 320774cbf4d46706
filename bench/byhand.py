"""The two sites by hand: one interface per node, files of wg-quick, and the two usual ways to apply a changed file.

One relay forwards from site to site, the other stands by with live sessions. An operator edits the files and goes from
node to node, relays first, as a loop over ssh would. Here ssh takes no time.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bench.twosites import LEAVES, OVERLAY, RELAYS, reaches
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.topology import Topology
from tests.lab.wait import wait_until

DEVICE = "wg0"
PORT = 51820
BACK = 60
"""Seconds in which traffic must flow again."""
EXTRA = "west2"
"""The node that comes and goes."""
ADDRESSES = {name: f"10.99.0.{number}" for number, name in enumerate((*RELAYS, *LEAVES, EXTRA), 1)}
_PEER = "[Peer]\n# {name}\nPublicKey = {key}\nAllowedIPs = {allowed}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The operator's sheet: what the files are written from."""

    private: Mapping[str, str]
    """Member → its private key."""
    public: Mapping[str, str]
    carrier: str = RELAYS[0]
    port: int = PORT

    def file(self, node: str, topology: Topology) -> str:
        """Return the text of the node's wg-quick file."""
        length = OVERLAY.partition("/")[2]
        parts = [f"[Interface]\nPrivateKey = {self.private[node]}\nAddress = {ADDRESSES[node]}/{length}\n"]
        if node in RELAYS:
            parts[0] += f"ListenPort = {self.port}\nPostUp = sysctl -qw net.ipv4.ip_forward=1\n"
        for other in sorted(self.private):
            if other != node and (node in RELAYS or other in RELAYS):
                allowed = OVERLAY if node not in RELAYS and other == self.carrier else f"{ADDRESSES[other]}/32"
                text = _PEER.format(name=other, key=self.public[other], allowed=allowed)
                if other in RELAYS:
                    text += f"Endpoint = {topology.machine(other).address}:{self.port}\n"
                parts.append(text + ("PersistentKeepalive = 25\n" if node not in RELAYS else ""))
        return "\n".join(parts)


Edit = Callable[[Sheet, Machine], Sheet]
"""An edit of the sheet; the machine is one that can make keys."""


def rekeyed(*nodes: str) -> Edit:
    """Give the nodes new keys. A node that was not a member becomes one."""

    def edit(sheet: Sheet, machine: Machine) -> Sheet:
        private = {node: base64.b64encode(os.urandom(32)).decode() for node in nodes}
        public = {node: machine.run("wg", "pubkey", stdin=key).strip() for node, key in private.items()}
        return replace(sheet, private={**sheet.private, **private}, public={**sheet.public, **public})

    return edit


def without(node: str) -> Edit:
    """Remove the node."""
    return lambda sheet, _: replace(sheet, private={n: key for n, key in sheet.private.items() if n != node})


def carried_by(relay: str) -> Edit:
    """Make the relay forward from site to site."""
    return lambda sheet, _: replace(sheet, carrier=relay)


def on_port(port: int) -> Edit:
    """Make the relays listen on the port."""
    return lambda sheet, _: replace(sheet, port=port)


class ByHand:
    """Nodes that apply their files by *words*, a shell command with ``$1`` for the device."""

    def __init__(self, name: str, words: str) -> None:
        self.name = name
        self._words = words
        self._files: dict[str, str] = {}
        self._sheet = Sheet(private={}, public={})

    def start(self, lab: Lab) -> None:
        """Start the two relays and the two leaves."""
        self._lab = lab
        self.do(rekeyed(*RELAYS, *LEAVES))
        self.ready()

    def do(self, edit: Edit) -> None:
        """Edit the sheet, and apply each file that changed on its node."""
        underlay, topology = self._lab.underlay, self._lab.underlay.topology
        self._sheet = edit(self._sheet, underlay[RELAYS[0]])
        members = sorted(self._sheet.private, key=lambda node: (node not in RELAYS, node))
        for node in [n for n in self._files if n not in members]:
            underlay[node].run("wg-quick", "down", DEVICE)
            del self._files[node]
        for node in members:
            text = self._sheet.file(node, topology)
            if text != self._files.get(node):
                put = f"umask 077; mkdir -p /etc/wireguard; cat > /etc/wireguard/{DEVICE}.conf"
                underlay[node].run("sh", "-c", put, stdin=text)
                words = self._words if node in self._files else 'wg-quick up "$1"'
                underlay[node].run("bash", "-ec", words, "bash", DEVICE)
                self._files[node] = text

    def ready(self) -> None:
        """Wait until the leaves reach each other and both relays, so that all sessions are established."""
        ways = [(a, ADDRESSES[b]) for a in LEAVES for b in (*RELAYS, *LEAVES) if a != b]
        wait_until(lambda: all(reaches(self._lab, *way) for way in ways), BACK, f"{self.name}'s nodes", every=0.5)

    def addresses(self) -> dict[str, str]:
        """Return the leaves' overlay addresses."""
        return {leaf: ADDRESSES[leaf] for leaf in LEAVES}


QUICK = 'wg-quick down "$1"; wg-quick up "$1"'
SYNC = 'wg syncconf "$1" <(wg-quick strip "$1")'
