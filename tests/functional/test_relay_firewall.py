"""Relays with a firewall that tracks connections, with the kernel's own nftables: two relays carry one connection.

Node a sends to b by r2, and b answers by r1. Devices of the relays have the names of a mesh's interfaces; they are
plain ones, since the firewall sees no difference.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.core.device import notrack
from saltext_wgmesh.core.model.policy import Role
from saltext_wgmesh.minion.system import relay_firewall
from saltext_wgmesh.minion.system.host import Host
from tests.functional.namespace import machine
from tests.nodeviews import leaf, peer, relay

STATEFUL = """
table inet foreign {
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    ct state invalid counter drop
  }
}
"""
"""The rules that firewalld and kube-proxy write."""
DROPPING = """
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy drop; }
}
"""
REJECTING = """
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    reject with icmpx admin-prohibited
  }
}
"""
"""The policy is to accept, and no packet gets there: the end of firewalld's chain."""
LOOSE = "for each in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $each; done"
VIEW = relay(leaves=(peer(5, "10.100.0.5/32"),), trunks=(2,))
A, B = "10.100.0.5", "10.100.0.6"


class Namespaces:
    """The nodes a, b, r1 and r2; ``run`` runs a command in one of them."""

    def __init__(self) -> None:
        self._sleepers = {n: subprocess.Popen(["unshare", "-n", "sleep", "600"]) for n in ("a", "b", "r1", "r2")}

    def run(self, node: str, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        pid = str(self._sleepers[node].pid)
        return subprocess.run(
            ["nsenter", "-t", pid, "-n", *argv], input=text, capture_output=True, text=True, check=False
        )

    def connect(self, relay_name: str, number: int) -> None:
        """Have *relay_name* forward between a and b, by devices named as on a relay."""
        for near, device, address in (("a", "wg0", A), ("b", "wg0-t2", B)):
            far, here = (str(self._sleepers[n].pid) for n in (relay_name, near))
            name = f"up{number}"
            argv = ["ip", "link", "add", name, "netns", here, "type", "veth", "peer", "name", device, "netns", far]
            subprocess.run(argv, check=True)
            for node, each in ((near, name), (relay_name, device)):
                self.run(node, "ip", "link", "set", each, "up")
            self.run(near, "ip", "address", "add", f"{address}/32", "dev", name)
            self.run(relay_name, "ip", "address", "add", f"10.100.0.{number}/32", "dev", device)
            self.run(relay_name, "ip", "route", "add", f"{address}/32", "dev", device)
            self.run(near, "ip", "route", "add", f"10.100.0.{number}/32", "dev", name)
        self.run(relay_name, "sh", "-c", f"{LOOSE}; echo 1 > /proc/sys/net/ipv4/ip_forward")

    def end(self) -> None:
        for sleeper in self._sleepers.values():
            sleeper.kill()
            sleeper.wait()


@pytest.fixture
def nodes() -> Iterator[Namespaces]:
    """Give four nodes: a reaches b by r2, and b reaches a by r1."""
    made = Namespaces()
    try:
        for sleeper in made._sleepers.values():
            _wait_for_namespace(sleeper.pid)
        made.connect("r1", 1)
        made.connect("r2", 2)
        for near, other, relay_number in (("a", B, 2), ("b", A, 1)):
            made.run(near, "sh", "-c", LOOSE)
            via = ("via", f"10.100.0.{relay_number}", "dev", f"up{relay_number}", "onlink")
            made.run(near, "ip", "route", "add", f"{other}/32", *via)
        yield made
    finally:
        made.end()


def _wait_for_namespace(pid: int) -> None:
    own = Path("/proc/self/ns/net").readlink()
    for _ in range(500):
        if Path(f"/proc/{pid}/ns/net").readlink() != own:
            return
        subprocess.run(["sleep", "0.01"], check=True)
    raise AssertionError("no namespace")


def connects(nodes: Namespaces, within: int = 30) -> bool:
    """Return whether a TCP connection from a to b carries data in *within* seconds, over two different relays."""
    server = "import socket; s = socket.create_server(('', 5000)); s.settimeout(90); s.accept()[0].sendall(b'hello')"
    client = f"import socket; print(socket.create_connection(('{B}', 5000), {within}).recv(9).decode())"
    pid = str(nodes._sleepers["b"].pid)
    with subprocess.Popen(
        ["nsenter", "-t", pid, "-n", "python3", "-c", server], stderr=subprocess.DEVNULL
    ) as listening:
        for _ in range(1500):
            if ":5000" in nodes.run("b", "ss", "-ltn").stdout:
                break
            subprocess.run(["sleep", "0.02"], check=True)
        found = nodes.run("a", "python3", "-c", client).stdout.strip() == "hello"
        listening.kill()
    return found


def test_asymmetric_pair_passes_stateful_relays(nodes):
    """Without the table the connection is lost; with it on both relays it works, and a flush brings the loss back."""
    assert connects(nodes), "the namespaces themselves"
    for name in ("r1", "r2"):
        assert nodes.run(name, "nft", "-f", "-", text=STATEFUL).returncode == 0
    assert not connects(nodes, within=6)
    for number, name in ((1, "r1"), (2, "r2")):
        table = notrack.notrack_table(replace(VIEW, addresses=(f"10.100.0.{number}",)))
        done = nodes.run(name, "nft", "-f", "-", text=table.script())
        assert done.returncode == 0, done.stderr
    assert connects(nodes)


@contextmanager
def node() -> Iterator[Host]:
    """Give this process a network of its own."""
    with machine():
        yield Host()


def test_table_is_written_once_and_put_back():
    """The table that nft lists is recognised; a flushed or a changed one is written again, and a leaf has none."""
    with node() as host:
        assert relay_firewall.table_fault(host, VIEW) is None
        assert relay_firewall.pending(host, VIEW) is None
        for damage in (("flush", "ruleset"), ("flush", "table", "inet", "wgmesh-wg0")):
            host.run("nft", *damage)
            assert relay_firewall.pending(host, VIEW) is not None
            assert relay_firewall.table_fault(host, VIEW) is None
            assert relay_firewall.pending(host, VIEW) is None
        assert relay_firewall.table_fault(host, replace(leaf(), role=Role.LEAF)) is None
        assert "wgmesh" not in host.run("nft", "list", "tables")


@pytest.mark.parametrize(
    ("rules", "chain"),
    [(DROPPING, ("ip", "filter", "FORWARD")), (REJECTING, ("inet", "firewalld", "filter_FORWARD"))],
    ids=["policy", "last rule"],
)
def test_dropping_chain_is_named_until_accepted(rules, chain):
    """A chain that drops what it does not name is a fault, until a rule of its table names the mesh's interfaces."""
    with node() as host:
        host.set_sysctl("net/ipv4/ip_forward", "1")
        host.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        assert relay_firewall.forwarding_faults(host, VIEW) == ()
        host.run("nft", "-f", "-", text=rules)
        (fault,) = relay_firewall.forwarding_faults(host, VIEW)
        assert fault.startswith(f"the chain {' '.join(chain)} drops by default")
        host.run("nft", "insert", "rule", *chain, "iifname", "wg0", "oifname", "wg0-t2", "accept")
        host.run("nft", "insert", "rule", *chain, "ct", "state", "established,related", "accept")
        (fault,) = relay_firewall.forwarding_faults(host, VIEW)
        assert fault.startswith(f'the chain {" ".join(chain)} drops by default, and accepts packets from "wg0" to')
        host.run("nft", "insert", "rule", *chain, "iifname", "wg0*", "oifname", "wg0*", "accept")
        assert relay_firewall.forwarding_faults(host, VIEW) == ()
        host.set_sysctl("net/ipv4/ip_forward", "0")
        (fault,) = relay_firewall.forwarding_faults(host, VIEW)
        assert fault.startswith("net.ipv4.ip_forward is 0")


def test_dropping_legacy_chain_is_named(tmp_path):
    """Rules of iptables-legacy, which nft does not show, are listed by its own program where the kernel has some."""
    (tmp_path / "ip_tables_names").write_text("nat\nfilter\n")
    program = tmp_path / "iptables-legacy"
    program.write_text(
        "#!/bin/sh\necho -P FORWARD DROP\n[ ! -e $0.accept ] || echo -A FORWARD -i wg0+ -o wg0+ -j ACCEPT\n"
    )
    program.chmod(0o755)
    with node(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        host = Host(proc_net=tmp_path)
        host.set_sysctl("net/ipv4/ip_forward", "1")
        host.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        (fault,) = relay_firewall.forwarding_faults(host, VIEW)
        assert fault.startswith("the chain FORWARD of iptables-legacy drops by default")
        (tmp_path / "iptables-legacy.accept").touch()
        assert relay_firewall.forwarding_faults(host, VIEW) == ()
