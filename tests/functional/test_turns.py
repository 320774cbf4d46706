"""Changes of a node whose links carry, by real watchers at all ends: nothing is lost, and what breaks is taken back.

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

from saltext_wgmesh.core.errors import TakenBack
from saltext_wgmesh.core.turns import Turns
from saltext_wgmesh.minion import apply, keys, linkfile, resting, trials, unjudged, watching
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.selfcheck import Before
from saltext_wgmesh.minion.store import Store
from tests.functional import far
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, named, peer, relay

N1, N2, N5 = "10.100.0.1", "10.100.0.2", "10.100.0.5"


def with_keys(view, known):
    """*view*, with the *known* public keys of its peers."""
    changed = (replace(i, peers=tuple(replace(p, public_key=known[p.node]) for p in i.peers)) for i in view.interfaces)
    return replace(view, interfaces=tuple(changed))


def with_endpoint(view, node, endpoint):
    """*view*, with *node* at another endpoint."""
    changed = (
        replace(i, peers=tuple(replace(p, endpoint=endpoint) if p.node == node else p for p in i.peers))
        for i in view.interfaces
    )
    return replace(view, interfaces=tuple(changed))


def relays(known):
    """The views of n1 and n2: the leaf directly, else by the other."""
    near = peer(5, f"{N5}/32", "fd00:64::5/128")
    first = with_keys(relay(leaves=(near,), trunks=(2,)), known)
    other = with_keys(relay(leaves=(near,), trunks=(1,)), known)
    other = replace(other, node="n2", addresses=(N2, "fd00:64::2"))
    first, other = (replace(v, routes=tuple(replace(r, detour=True) for r in v.routes)) for v in (first, other))
    return first, with_endpoint(other, "n1", "192.0.2.10:51822")


def key_of():
    return keys.ensure(Host())


def take(view):
    """The machine holds *view*."""
    apply.apply(Host(), view)


def join(view):
    """So it does, for the first time; and a watcher is started, however long that takes."""
    take(view)
    watching.supervise()


def links():
    """Neighbour → state and hold."""
    report = linkfile.read(Host(), "wg0")
    return {n: (link.state.value, link.hold) for n, link in report.links.items()} if report else {}


def device_to(prefix):
    """By which device packets to *prefix* go."""
    found = re.search(r"dev (\S+)", far.run("ip", "route", "show", prefix))
    return found[1] if found else None


@pytest.fixture
def mesh(watchers):
    """The machines of the relays, and the views of all; every link is up."""
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
    """Whether every end of every link is."""
    told = [links(), *(machine.call(links) for machine in machines.values())]
    return [sorted(state for state, _ in each.values()) for each in told] == [["up", "up"]] * 3


@contextmanager
def pinged(address):
    """What was lost of the packets that went there and back, 100 a second, from before the block until after it."""
    lost = []
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(["ping", "-i", "0.01", "-W", "2", address], stdout=said, text=True)

        def heard():
            return os.pread(said.fileno(), 1 << 24, 0).count(b"bytes from")

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
        text = os.pread(said.fileno(), 1 << 24, 0).decode()
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", text).groups()
    # One may be on its way at the end.
    lost.append(max(0, int(sent) - int(received) - 1))


def test_a_link_at_rest_is_left_at_both_ends_and_used_again_at_once(mesh):
    """While the leaf lets it rest the relay, too, sends to the leaf by the other one. Nobody calls that a flap."""
    machines, _ = mesh
    with pinged(N1) as lost:
        assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, f"{N5}")) == ("wg0-u1", "wg0")
        with resting.at_rest(Host(), "wg0", frozenset({"n1"})):
            assert links()["n1"] == ("admin-down", 0.0)
            assert machines["n1"].call(links)["n5"] == ("admin-down", 0.0)
            assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, f"{N5}")) == ("wg0-u2", "wg0-t2")
        let_go = time.monotonic()
        wait_until(lambda: all_up(machines), 10, "the link to be used again", every=0.02)
        assert time.monotonic() - let_go < 2
        assert (device_to(NETWORKS[0]), machines["n1"].call(device_to, f"{N5}")) == ("wg0-u1", "wg0")
    assert lost == [0]
    assert {hold for _, hold in links().values()} == {0.0}


def test_another_mtu_loses_nothing(mesh):
    """Of the leaf and of its relays."""
    machines, views = mesh
    with pinged(N1) as lost:
        for name, machine in machines.items():
            machine.call(take, replace(views[name], mtu=1380))
        take(replace(views["n5"], mtu=1380))
    assert lost == [0]


def test_a_relays_other_port_loses_nothing(mesh):
    """The relay moves first, and its first packet tells the leaf where it is; the leaf's view follows."""
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
    """The WireGuard interfaces of the machine, and the files that bring up such, by name."""
    found = sorted(far.run("wg", "show", "interfaces").split())
    return found, sorted(path.stem for path in Host().conf_dir.glob("*.conf"))


def lines_of(view):
    """What an apply of *view* changes."""
    return apply.apply(Host(), view).lines


def test_other_names_lose_nothing(mesh):
    """First a relay gets them, and the leaf hears it again; then the other; then the leaf; and then all go back."""
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
    """*view*, with that listen port for the first uplink."""
    access, first, second = view.interfaces
    return replace(view, interfaces=(access, replace(first, listen_port=port), second))


def test_a_view_that_costs_a_link_is_taken_back_and_nothing_is_lost(mesh, monkeypatch):
    """A port on which a firewall lets nothing in."""
    machines, views = mesh
    monkeypatch.setitem(trials.Trial.__init__.__kwdefaults__, "patience", 3.0)
    good, bad = with_port(views["n5"], 51998), with_port(views["n5"], 51999)
    take(good)
    for command in (
        "add table inet wall",
        "add chain inet wall in { type filter hook input priority 0; }",
        "add rule inet wall in udp dport 51999 drop",
    ):
        far.run("nft", command)
    with pinged(N1) as lost:
        with pytest.raises(TakenBack, match="taken back: n1 is not heard any more after the changes of wg0-u1"):
            take(bad)
        wait_until(lambda: all_up(machines), 10, "the link to be up again")
    assert lost == [0]
    assert far.run("wg", "show", "wg0-u1", "listen-port").strip() == "51998"
    assert apply.apply(Host(), good).lines == []


def test_a_wrong_endpoint_costs_nothing_while_the_other_end_knows_the_right_way(mesh):
    """WireGuard itself goes back to where it hears the relay."""
    machines, views = mesh
    with pinged(N1) as lost:
        take(with_endpoint(views["n5"], "n1", "192.0.2.99:51820"))
    assert (lost, all_up(machines)) == ([0], True)
    assert "192.0.2.10:51820" in far.run("wg", "show", "wg0-u1", "endpoints")


def test_the_watcher_has_an_apply_judged_that_died(mesh):
    """Nobody need call the node for it."""
    _, views = mesh
    store, up = Store(host=Host(), mesh="wg0"), frozenset({"n1", "n2"})
    trial = trials.Trial(plan=Turns(), before=Before(up=up), view=None, previous=None, awaited=up)
    unjudged.keep(
        store, unjudged.Unjudged(view=views["n5"], asked=views["n5"].digest(), trial=trial, boot=unjudged.boot(Host()))
    )
    assert unjudged.left(Host()) == ["wg0"]
    wait_until(lambda: unjudged.left(Host()) == [], 20, "it to be judged")
    assert (store.view(), store.taken_back()) == (views["n5"], None)
