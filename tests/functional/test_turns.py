"""Changes of a node under traffic, with real watchers at all ends: no packet is lost, and a bad view is rolled back.

n5 is a leaf of the relays n1 and n2, which have a trunk between them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from saltext_wgmesh.core.device.change_plan import ChangePlan
from saltext_wgmesh.core.errors import RolledBack
from saltext_wgmesh.minion.apply import apply, journal
from saltext_wgmesh.minion.apply.attempt import Attempt
from saltext_wgmesh.minion.apply.health_check import Baseline
from saltext_wgmesh.minion.apply.timeouts import Timeouts
from saltext_wgmesh.minion.state import admin_down, keys, link_report_file
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.system.moment import boot_id
from saltext_wgmesh.minion.watcher import service
from tests.functional import far
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, named, peer, relay

N1, N2, N5 = "10.100.0.1", "10.100.0.2", "10.100.0.5"


def with_keys(view, known):
    """Return *view* with the *known* public keys of its peers."""
    changed = (replace(i, peers=tuple(replace(p, public_key=known[p.node]) for p in i.peers)) for i in view.interfaces)
    return replace(view, interfaces=tuple(changed))


def with_endpoint(view, node, endpoint):
    """Return *view* with another endpoint of *node*."""
    changed = (
        replace(i, peers=tuple(replace(p, endpoint=endpoint) if p.node == node else p for p in i.peers))
        for i in view.interfaces
    )
    return replace(view, interfaces=tuple(changed))


def relays(known):
    """Return the views of n1 and n2: the leaf is reached directly, or else through the other relay."""
    near = peer(5, f"{N5}/32", "fd00:64::5/128")
    first = with_keys(relay(leaves=(near,), trunks=(2,)), known)
    other = with_keys(relay(leaves=(near,), trunks=(1,)), known)
    other = replace(other, node="n2", addresses=(N2, "fd00:64::2"))
    first, other = (replace(v, routes=tuple(replace(r, detour=True) for r in v.routes)) for v in (first, other))
    return first, with_endpoint(other, "n1", "192.0.2.10:51822")


def key_of():
    return keys.ensure(Host())


def take(view):
    """Apply *view* on this machine."""
    apply.apply(Host(), view)


def join(view):
    """Apply the first view and start a watcher, without a time limit."""
    take(view)
    service.start_supervisor()


def links():
    """Return neighbour → state and hold-down time in seconds."""
    report = link_report_file.read_report(Host(), "wg0")
    return {n: (link.state.value, link.hold) for n, link in report.links.items()} if report else {}


def device_to(prefix):
    """Return the device of the route to *prefix*, or None."""
    found = re.search(r"dev (\S+)", far.run("ip", "route", "show", prefix))
    return found[1] if found else None


@pytest.fixture
def mesh(watchers):
    """Yield the machines of the relays, and the views of all nodes. Every link is up."""
    with far.machines(n1="192.0.2.10", n2="192.0.2.20") as machines:
        known = {name: machine.call(key_of) for name, machine in machines.items()} | {"n5": key_of()}
        first, second = relays(known)
        views = {"n1": first, "n2": second, "n5": with_keys(leaf(), known)}
        machines["n1"].call(join, first)
        machines["n2"].call(join, second)
        join(views["n5"])
        wait_until(lambda: all_up(machines), 90, "all links to be up")
        yield machines, views


def all_up(machines):
    """Return whether both ends of every link are up."""
    reports = [links(), *(machine.call(links) for machine in machines.values())]
    return [sorted(state for state, _ in each.values()) for each in reports] == [["up", "up"]] * 3


@contextmanager
def pinged(address):
    """Ping *address* 100 times a second. Yield a list that gets the number of lost packets at the end."""
    lost = []
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(["ping", "-i", "0.01", "-W", "2", address], stdout=output, text=True)

        def heard():
            return os.pread(output.fileno(), 1 << 24, 0).count(b"bytes from")

        def flows():
            before = heard()
            wait_until(lambda: heard() > before + 20, 10, f"answers of {address}", every=0.05)

        try:
            flows()
            yield lost
            flows()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
        text = os.pread(output.fileno(), 1 << 24, 0).decode()
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", text).groups()
    # One may be on its way at the end.
    lost.append(max(0, int(sent) - int(received) - 1))


def test_admin_down_link_is_left_at_both_ends(mesh):
    """Leaf and relay send through the other relay. Afterwards the link is used within 2 s, and counts no flap."""
    machines, _ = mesh
    with pinged(N1) as lost:
        assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, f"{N5}")) == ("wg0-u1", "wg0")
        with admin_down.links_admin_down(Host(), "wg0", frozenset({"n1"})):
            assert links()["n1"] == ("admin-down", 0.0)
            assert machines["n1"].call(links)["n5"] == ("admin-down", 0.0)
            assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, f"{N5}")) == ("wg0-u2", "wg0-t2")
        let_go = time.monotonic()
        wait_until(lambda: all_up(machines), 10, "the link to be used again", every=0.02)
        assert time.monotonic() - let_go < 2
        assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, f"{N5}")) == ("wg0-u1", "wg0")
    assert lost == [0]
    assert {hold for _, hold in links().values()} == {0.0}


def test_mtu_change_loses_no_packet(mesh):
    """The MTU of the leaf and of its relays is changed under traffic."""
    machines, views = mesh
    with pinged(N1) as lost:
        for name, machine in machines.items():
            machine.call(take, replace(views[name], mtu=1380))
        take(replace(views["n5"], mtu=1380))
    assert lost == [0]


def test_relay_port_change_loses_no_packet(mesh):
    """The relay moves first. WireGuard learns its new port from its first packet, before the leaf's view follows."""
    machines, views = mesh
    access, trunk = views["n1"].interfaces
    moved = replace(views["n1"], interfaces=(replace(access, listen_port=51900), trunk))
    with pinged(N1) as lost:
        machines["n1"].call(take, moved)
        wait_until(lambda: all_up(machines), 10, "the link to be up again")
        take(with_endpoint(views["n5"], "n1", "192.0.2.10:51900"))
    assert lost == [0]
    assert "192.0.2.10:51900" in far.run("wg", "show", "wg0-u1", "endpoints")


def interfaces():
    """Return the names of the machine's WireGuard interfaces, and of its wg-quick files."""
    found = sorted(far.run("wg", "show", "interfaces").split())
    return found, sorted(path.stem for path in Host().conf_dir.glob("*.conf"))


def lines_of(view):
    """Apply *view* and return its changes."""
    return apply.apply(Host(), view).lines


def test_interface_rename_loses_no_packet(mesh):
    """One node after another renames its interfaces, relays first, and then all go back. No later apply has changes."""
    machines, views = mesh
    for access in ("office0", "wg0"):
        new = {node: named(view, access) for node, view in views.items()}
        with pinged(N1) as lost:
            for node, machine in machines.items():
                machine.call(take, new[node])
                assert all_up(machines)
            take(new["n5"])
        assert (lost, all_up(machines)) == ([0], True)
        expected = [access, f"{access}-u1", f"{access}-u2"]
        assert interfaces() == (expected, expected)
        assert machines["n1"].call(interfaces) == ([access, f"{access}-t2"],) * 2
        assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, N5)) == (f"{access}-u1", access)
        assert [lines_of(new["n5"]), *(m.call(lines_of, new[n]) for n, m in machines.items())] == [[]] * 3


def with_port(view, port):
    """Return *view* with another listen port of the first uplink."""
    access, first, second = view.interfaces
    return replace(view, interfaces=(access, replace(first, listen_port=port), second))


def test_view_that_cuts_link_is_rolled_back(mesh):
    """A firewall closes the new port. The old view is restored, and no packet is lost."""
    machines, views = mesh
    good, bad = with_port(views["n5"], 51998), with_port(views["n5"], 51999)
    take(good)
    for command in (
        "add table inet wall",
        "add chain inet wall in { type filter hook input priority 0; }",
        "add rule inet wall in udp dport 51999 drop",
    ):
        far.run("nft", command)
    with pinged(N1) as lost:
        with pytest.raises(RolledBack, match="rolled back: n1 is no longer reachable after the changes of wg0-u1"):
            apply.apply(Host(), bad, timeouts=Timeouts(link=3.0))
        wait_until(lambda: all_up(machines), 10, "the link to be up again")
    assert lost == [0]
    assert far.run("wg", "show", "wg0-u1", "listen-port").strip() == "51998"
    assert apply.apply(Host(), good).lines == []


def test_wrong_endpoint_loses_no_packet(mesh):
    """WireGuard itself returns to the address that the relay sends from."""
    machines, views = mesh
    with pinged(N1) as lost:
        take(with_endpoint(views["n5"], "n1", "192.0.2.99:51820"))
    assert (lost, all_up(machines)) == ([0], True)
    assert "192.0.2.10:51820" in far.run("wg", "show", "wg0-u1", "endpoints")


def test_watcher_has_dead_apply_recovered(mesh):
    """The pending journal of an apply that died is recovered without a call from outside."""
    _, views = mesh
    store, up = Store(host=Host(), mesh="wg0"), frozenset({"n1", "n2"})
    attempt = Attempt(plan=ChangePlan(), baseline=Baseline(links_up=up), old_view=None, older_view=None, required=up)
    pending = journal.PendingApply(
        view=views["n5"], requested_digest=views["n5"].digest(), attempt=attempt, boot_id=boot_id(Host())
    )
    journal.write_pending(store, pending)
    assert journal.interrupted(Host()) == ["wg0"]
    wait_until(lambda: journal.interrupted(Host()) == [], 20, "it to be recovered")
    assert (store.view(), store.rolled_back()) == (views["n5"], None)
