"""Changes in turns, and what becomes of a view that breaks the node. The watcher is played: it obeys at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from saltext_wgmesh.core.errors import HostError, TakenBack
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import apply, keys, linkfile, offers, resting, selfcheck, trials, unjudged
from saltext_wgmesh.minion.selfcheck import Master
from saltext_wgmesh.minion.store import UNJUDGED, Store
from tests.nodeviews import key, leaf, named, peer, relay
from tests.unit.fakehost import FakeDevice, FakeHost, Kernel, with_ipv6

HOUR = 3600.0
OLD, NEW = "192.0.2.10:51820", "198.51.100.10:51820"


class PlayedWatcher:
    """Lets links rest as it is asked to, and says that all others are up but those that are *broken*."""

    def __init__(self, host: FakeHost, view: View) -> None:
        self.host = host
        self.broken: Callable[[FakeHost], set[str]] = lambda _host: set()
        self.asked: list[tuple[str, ...]] = []
        """Each rest that was asked for."""
        self.names = {p.node: i.name for i in view.interfaces for p in i.peers}
        self._stop = threading.Event()
        self._looks = 0
        self.look()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def look(self) -> None:
        rests = resting.wanted(self.host, "wg0")
        if rests and (not self.asked or self.asked[-1] != tuple(sorted(rests))):
            self.asked.append(tuple(sorted(rests)))
        broken = self.broken(self.host)
        links = {n: self._link(n, rests, broken) for n in sorted(self.names)}
        linkfile.write(self.host, LinkReport(mesh="wg0", watched=True, links=MappingProxyType(links)))

    def _link(self, name: str, rests: frozenset[str], broken: set[str]) -> Link:
        state = LinkState.DOWN if name in broken else LinkState.ADMIN_DOWN if name in rests else LinkState.UP
        return Link(neighbour=name, interface=self.names[name], state=state, since=7.0, heeded=name in rests)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.look()
            self._looks += 1

    def settle(self) -> None:
        """What it says is of now."""
        enough, deadline = self._looks + 2, time.monotonic() + 5
        while self._looks < enough and time.monotonic() < deadline:
            time.sleep(0.005)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    found = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    found.kernel.public_key = keys.ensure(found)
    return found


@pytest.fixture
def watched(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[View], PlayedWatcher]]:
    """Applies a first view, and has a watcher from then on."""
    monkeypatch.setattr(selfcheck, "PATIENCE", 0.5)
    monkeypatch.setitem(trials.Trial.__init__.__kwdefaults__, "patience", 0.5)
    monkeypatch.setattr(trials, "BACK", 0.1)
    monkeypatch.setattr(trials, "FOLLOW", 0.1)
    made: list[PlayedWatcher] = []

    def begin(view: View) -> PlayedWatcher:
        apply.apply(host, view)
        made.append(PlayedWatcher(host, view))
        host.kernel.ran.clear()
        return made[0]

    yield begin
    for each in made:
        each.stop()


def with_endpoint(view: View, number: int, endpoint: str) -> View:
    """*view*, with relay *number* at another endpoint."""
    changed = tuple(
        replace(i, peers=tuple(replace(p, endpoint=endpoint) if p.node == f"n{number}" else p for p in i.peers))
        for i in view.interfaces
    )
    return replace(view, interfaces=changed)


def with_ports(view: View, *ports: int) -> View:
    """*view*, with these listen ports."""
    listed = zip(view.interfaces, ports, strict=True)
    return replace(view, interfaces=tuple(replace(i, listen_port=port) for i, port in listed))


def broken_while(number: int, endpoint: str) -> Callable[[FakeHost], set[str]]:
    """The link of relay *number* is down as long as it is sent to *endpoint*."""

    def broken(host: FakeHost) -> set[str]:
        device = host.kernel.devices.get(f"wg0-u{number}")
        found = (device.peers or {}).get(key(number)) if device else None
        return {f"n{number}"} if found and found.endpoint == endpoint else set()

    return broken


def sets(host: FakeHost) -> list[str]:
    """The ``wg set`` and ``ip link`` commands that were run, in order."""
    return [" ".join(argv) for argv in host.kernel.ran if argv[:2] == ("wg", "set")]


# --- turns ---------------------------------------------------------------------------------------------


def test_one_interface_after_the_other_while_its_links_rest(host, watched) -> None:
    """Another MTU disturbs both uplinks: never both at once. The access interface has nobody to disturb."""
    watcher = watched(leaf())
    done = apply.apply(host, replace(leaf(), mtu=1380))
    assert watcher.asked == [("n1",), ("n2",)]
    assert {d.mtu for d in host.kernel.devices.values()} == {1380}
    assert not resting.path(host, "wg0").exists()
    assert len(done.lines) == len([line for line in done.lines if "mtu" in line or "boot" in line])


def test_only_the_link_that_changes_rests(host, watched) -> None:
    """A direct neighbour at another address, and not the one beside it."""
    near = (peer(7, endpoint="192.0.2.7:51820"), peer(8))
    watcher = watched(leaf(direct=near))
    apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.77:51820"), peer(8))))
    assert watcher.asked == [("n7",)]


def test_what_only_adds_lets_nothing_rest(host, watched) -> None:
    """A third uplink, a direct neighbour and its routes."""
    watcher = watched(leaf())
    apply.apply(host, leaf(relays=(1, 2, 3), direct=(peer(7),)))
    assert watcher.asked == []


def test_without_a_watcher_all_is_done_at_once(host) -> None:
    apply.apply(host, leaf())
    apply.apply(host, replace(leaf(), mtu=1380))
    assert not resting.path(host, "wg0").exists()


def test_a_neighbour_with_another_key_is_replaced_while_its_link_rests(host, watched) -> None:
    """The new peer takes the allowed-ips, and the old one goes in the same turn."""
    old = leaf(direct=(peer(7),))
    watcher = watched(old)
    apply.apply(host, leaf(direct=(peer(7, public_key=key(77)),)))
    assert watcher.asked == [("n7",)]
    assert set(host.kernel.devices["wg0"].peers) == {key(77)}


@pytest.mark.parametrize(
    ("ports", "asked"),
    [
        # Up by one: who gets a port waits for who gives it up.
        ((51821, 51822, 51823), [("n3",), ("n2",), ("n7",)]),
        # In a ring nobody can be first: all together.
        ((51821, 51822, 51820), [("n2", "n3", "n7")]),
    ],
)
def test_ports_that_move_on(host, watched, ports, asked) -> None:
    view = with_ports(relay(leaves=(peer(7),), trunks=(2, 3)), 51820, 51821, 51822)
    watcher = watched(view)
    apply.apply(host, with_ports(view, *ports))
    assert tuple(d.port for _, d in sorted(host.kernel.devices.items())) == ports
    assert watcher.asked == asked


def test_a_new_interface_waits_for_the_port_that_another_gives_up(host, watched) -> None:
    old = with_ports(relay(leaves=(peer(7),), trunks=(2,)), 51820, 51821)
    watcher = watched(old)
    new = with_ports(relay(leaves=(peer(7),), trunks=(2, 3)), 51820, 51822, 51821)
    apply.apply(host, new)
    assert [host.kernel.devices[n].port for n in ("wg0", "wg0-t2", "wg0-t3")] == [51820, 51822, 51821]
    assert watcher.asked == [("n2",)]


def test_a_relay_that_is_heard_at_its_old_port_is_left_there(host, watched) -> None:
    """It has not moved yet: when it does, its own first packet tells where. Nothing rests, nothing is set."""
    watcher = watched(leaf())
    moved = with_endpoint(leaf(), 1, "192.0.2.10:51900")
    apply.apply(host, moved)
    assert (watcher.asked, sets(host)) == ([], [])
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    assert "192.0.2.10:51900" in (host.conf_dir / "wg0-u1.conf").read_text()


def test_a_relay_that_is_not_heard_is_sought_at_its_new_port(host, watched) -> None:
    watcher = watched(leaf())
    watcher.broken = lambda _host: {"n1"}
    watcher.look()
    apply.apply(host, with_endpoint(leaf(), 1, "192.0.2.10:51900"))
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == "192.0.2.10:51900"


def test_another_key_comes_interface_by_interface(host, watched) -> None:
    """Each while its links rest; the old key goes when no interface runs it any more."""
    watcher = watched(leaf(direct=(peer(7),)))
    old, new = keys.public_key(host), keys.prepare(host)
    apply.apply(host, leaf(direct=(peer(7),)))
    assert {d.public_key for d in host.kernel.devices.values()} == {old}
    apply.apply(host, replace(leaf(direct=(peer(7),)), turn_to=new))
    assert watcher.asked == [("n1",), ("n2",), ("n7",)]
    assert {d.public_key for d in host.kernel.devices.values()} == {new}
    assert (keys.public_key(host), keys.next_key(host)) == (new, None)
    assert apply.apply(host, replace(leaf(direct=(peer(7),)), turn_to=new)).lines == []


def test_to_a_key_that_is_not_the_next_one_nobody_turns(host, watched) -> None:
    watcher = watched(leaf())
    keys.prepare(host)
    apply.apply(host, replace(leaf(), turn_to=key(9)))
    assert watcher.asked == []
    assert {d.public_key for d in host.kernel.devices.values()} == {keys.public_key(host)}


# --- other names ---------------------------------------------------------------------------------------

NEAR = leaf(direct=(peer(7), peer(8)))


def test_an_interface_that_gets_another_name_is_made_anew_while_its_links_rest(host, watched) -> None:
    """One after the other, the access interface last; the old device first says nothing more and has no port."""
    watcher = watched(NEAR)
    done = apply.apply(host, named(NEAR, "x"))
    assert watcher.asked == [("n1",), ("n2",), ("n7", "n8")]
    assert sorted(host.kernel.devices) == ["x", "x-u1", "x-u2"]
    assert {p.stem for p in host.conf_dir.glob("*.conf")} == {"x", "x-u1", "x-u2"}
    assert host.kernel.devices["x"].port == 51820
    words = [" ".join(argv) for argv in host.kernel.ran]
    silenced = next(n for n, w in enumerate(words) if w.startswith("wg set wg0 listen-port 0 peer") and "remove" in w)
    assert silenced < words.index("ip link add dev x type wireguard")
    lines = "\n".join(done.lines)
    assert lines.index("wg0-u1") < lines.index("wg0-u2") < lines.index("wg0:")
    memory = Store(host=host, mesh="wg0")
    assert (memory.view(), memory.previous()) == (named(NEAR, "x"), NEAR)
    assert memory.owned().interfaces == {"x", "x-u1", "x-u2"}
    assert apply.apply(host, named(NEAR, "x")).lines == []


def test_whoever_opens_the_link_is_called_where_it_was_heard_last(host, watched) -> None:
    """Else it would have to find out by itself that its session is dead. Where nobody was heard, the view is right."""
    watched(NEAR)
    host.kernel.devices["wg0"].peers[key(7)].endpoint = "198.51.100.7:4444"
    host.kernel.devices["wg0-u1"].peers[key(1)].endpoint = "198.51.100.9:9"
    apply.apply(host, named(NEAR, "x"))
    ends = {k: p.endpoint for d in host.kernel.devices.values() for k, p in (d.peers or {}).items()}
    assert ends == {key(1): OLD, key(2): "192.0.2.20:51820", key(7): "198.51.100.7:4444", key(8): None}
    assert "198.51" not in "".join(path.read_text() for path in host.conf_dir.glob("*.conf"))


def test_whoever_roamed_and_was_heard_since_is_called_there(host, watched) -> None:
    """The view names where it was."""
    watched(leaf(relays=(1,)))
    uplink = host.kernel.devices["wg0-u1"].peers[key(1)]
    uplink.endpoint, uplink.handshake_at = "198.51.100.9:9", int(time.time())
    apply.apply(host, named(leaf(relays=(1,)), "x"))
    calls = [argv for argv in host.kernel.ran if argv[:3] == ("wg", "set", "x-u1") and "endpoint" in argv]
    assert calls[0][calls[0].index("endpoint") + 1] == "198.51.100.9:9"


def test_relays_have_their_trunks_first_and_their_rules_follow(host, watched) -> None:
    view = relay(leaves=(peer(7),), trunks=(2, 3))
    watcher = watched(view)
    apply.apply(host, named(view, "x"))
    assert watcher.asked == [("n2",), ("n3",), ("n7",)]
    assert {device for _, device, _ in host.kernel.rules} == {"x-t2", "x-t3"}
    assert apply.apply(host, named(view, "x")).lines == []


def test_what_else_changes_comes_after_the_names(host, watched) -> None:
    watcher = watched(NEAR)
    new = named(replace(leaf(relays=(2, 3), via=2, direct=(peer(7),)), mtu=1380), "x")
    watcher.names |= {"n3": "x-u3"}
    apply.apply(host, new)
    assert watcher.asked[:2] == [("n2",), ("n7", "n8")]
    assert sorted(host.kernel.devices) == ["x", "x-u2", "x-u3"]
    assert apply.apply(host, new).lines == []


@pytest.mark.parametrize(
    ("view", "lost", "why", "stays"),
    [
        (NEAR, {"n2"}, "n2 is not heard any more", ["wg0", "wg0-u2", "x-u1"]),
        (relay(leaves=(peer(7), peer(8))), {"n7", "n8"}, r"nobody on x is heard any more \(n7, n8\)", ["wg0", "x-t2"]),
    ],
)
def test_a_name_that_costs_links_is_taken_back_and_what_came_before_it_stays(
    host, watched, view, lost, why, stays
) -> None:
    """As by a firewall that knows interfaces by their names; the next try goes on from there."""
    watcher = watched(view)
    device = "x-u2" if lost == {"n2"} else "x"
    watcher.broken = lambda found: lost if device in found.kernel.devices else set()
    with pytest.raises(TakenBack, match=why) as caught:
        apply.apply(host, named(view, "x"))
    held = Store(host=host, mesh="wg0").view()
    assert (sorted(host.kernel.devices), caught.value.digest) == (stays, held.digest())
    with pytest.raises(TakenBack, match=r"it was tried \d s ago"):
        apply.apply(host, named(view, "x"), insists=False)
    assert apply.apply(host, held).lines == []
    watcher.broken = lambda _found: set()
    watcher.asked.clear()
    apply.apply(host, named(view, "x"))
    assert (sorted(lost) in [sorted(a) for a in watcher.asked], ("n1",) in watcher.asked) == (True, False)
    assert sorted(host.kernel.devices) == sorted(i.name for i in named(view, "x").interfaces)


def test_one_of_several_leaves_that_does_not_come_back_is_no_reason_to_go_back(host, watched, monkeypatch) -> None:
    view = relay(leaves=(peer(7), peer(8)))
    watcher = watched(view)
    watcher.broken = lambda found: {"n8"} if "x" in found.kernel.devices else set()
    apply.apply(host, named(view, "x"))
    assert sorted(host.kernel.devices) == ["x", "x-t2"]


def test_a_name_that_somebody_else_has_changes_nothing(host, watched) -> None:
    watched(NEAR)
    host.kernel.devices["x"] = FakeDevice()
    with pytest.raises(HostError, match="x exists on this node and was not made by mesh wg0: nothing was changed"):
        apply.apply(host, named(NEAR, "x"))
    assert sorted(host.kernel.devices) == ["wg0", "wg0-u1", "wg0-u2", "x"]


def test_without_a_watcher_all_names_change_at_once(host) -> None:
    apply.apply(host, NEAR)
    host.kernel.devices["wg0"].peers[key(7)].endpoint = "198.51.100.7:4444"
    apply.apply(host, named(NEAR, "x"))
    assert sorted(host.kernel.devices) == ["x", "x-u1", "x-u2"]
    assert host.kernel.devices["x"].peers[key(7)].endpoint == "198.51.100.7:4444"
    assert apply.apply(host, named(NEAR, "x")).lines == []
    assert apply.remove(host, "wg0").changed
    assert (host.kernel.devices, list(host.conf_dir.glob("*.conf"))) == ({}, [])


def test_two_neighbours_that_move_at_once_find_each_other(host, watched) -> None:
    """Each has the other at the port that it has just left; then both go by their views."""
    far = "192.0.2.70"

    def at(own: int, theirs: int) -> View:
        return leaf(direct=(peer(7, endpoint=f"{far}:{theirs}"),), port=own)

    def broken(found: FakeHost) -> set[str]:
        wg0 = found.kernel.devices["wg0"]
        return {"n7"} if wg0.port == 51900 and wg0.peers[key(7)].endpoint == f"{far}:51820" else set()

    watcher = watched(at(51820, 51820))
    watcher.broken = broken
    apply.apply(host, at(51900, 51900))
    assert host.kernel.devices["wg0"].peers[key(7)].endpoint == f"{far}:51900"
    assert apply.apply(host, at(51900, 51900)).lines == []


def test_a_link_that_goes_to_another_interface_is_not_used_before_it_is_heard_there(host, watched) -> None:
    """The watcher knows it by the old one, where it was up."""
    watched(leaf(relays=(1, 2)))
    changed = leaf(relays=(1, 2))
    trunk = replace(changed.interfaces[1], name="wg0-t1", listen_port=51821)
    apply.apply(host, replace(changed, interfaces=(changed.interfaces[0], trunk, changed.interfaces[2])))
    assert host.kernel.routes["main", "10.100.0.0/16"]["dev"] == "wg0-u2"


# --- what breaks the node is taken back ----------------------------------------------------------------


def test_a_view_that_costs_a_link_is_taken_back(host, watched) -> None:
    """All is as it was: endpoints, files, memory; and the interface whose turn was still to come was not touched."""
    watcher = watched(leaf())
    watcher.broken = broken_while(1, NEW)
    memory = Store(host=host, mesh="wg0")
    with pytest.raises(TakenBack, match="taken back: n1 is not heard any more after the changes of wg0-u1") as caught:
        apply.apply(host, with_endpoint(with_endpoint(leaf(), 1, NEW), 2, NEW))
    assert caught.value.digest == leaf().digest()
    assert watcher.asked == [("n1",)]
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    assert NEW not in (host.conf_dir / "wg0-u1.conf").read_text()
    assert (memory.view(), memory.previous()) == (leaf(), None)
    assert apply.apply(host, leaf()).lines == []


def test_a_key_that_costs_a_link_is_taken_back(host, watched) -> None:
    """The interface that turned runs the old key again, which is still there; the next one waits for another turn."""
    watcher = watched(leaf())
    old, new = keys.public_key(host), keys.prepare(host)
    watcher.broken = lambda host: {"n2"} if host.kernel.devices["wg0-u2"].public_key == new else set()
    with pytest.raises(TakenBack, match="n2 is not heard any more after the changes of wg0-u2"):
        apply.apply(host, replace(leaf(), turn_to=new))
    assert {d.public_key for d in host.kernel.devices.values()} == {old}
    assert (keys.public_key(host), keys.next_key(host)) == (old, new)
    assert apply.apply(host, leaf()).lines == []


def test_a_fresh_handshake_does_not_keep_the_wrong_endpoint(host, watched) -> None:
    """Of a minute ago, as it always is: the way back sets the endpoint that the broken view had changed."""
    watcher = watched(leaf())
    host.kernel.devices["wg0-u1"].peers[key(1)].handshake_at = int(time.time())
    watcher.broken = broken_while(1, NEW)
    with pytest.raises(TakenBack):
        apply.apply(host, with_endpoint(leaf(), 1, NEW))
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD


def test_a_leaf_that_hears_no_relay_any_more_takes_the_view_back(host, watched) -> None:
    """Other relays, none of which knows it: its old ones come back, with their routes."""
    watcher = watched(leaf())
    watcher.names |= {"n3": "wg0-u3"}
    watcher.broken = lambda _host: {"n3"}
    with pytest.raises(TakenBack, match=r"no relay is heard any more \(n3\)"):
        apply.apply(host, leaf(relays=(3,), via=3))
    assert sorted(host.kernel.devices) == ["wg0", "wg0-u1", "wg0-u2"]
    assert host.kernel.routes["main", "10.100.0.0/16"]["dev"] == "wg0-u1"
    assert {p.stem for p in host.conf_dir.glob("*.conf")} == {"wg0", "wg0-u1", "wg0-u2"}


def test_links_that_others_open_are_not_waited_for(host, watched, monkeypatch) -> None:
    """A leaf behind a NAT finds its relay's new port only by a view of its own."""
    view = relay(leaves=(peer(7),))
    watcher = watched(view)
    watcher.broken = lambda found: {"n7"} if found.kernel.devices["wg0"].port == 51900 else set()
    monkeypatch.setattr(selfcheck, "PATIENCE", HOUR)
    monkeypatch.setitem(trials.Trial.__init__.__kwdefaults__, "patience", HOUR)
    apply.apply(host, with_ports(view, 51900, 51822))
    assert watcher.asked == [("n7",)]
    assert host.kernel.devices["wg0"].port == 51900


@pytest.mark.parametrize("beyond", [True, False])
def test_a_view_that_cuts_off_the_master_is_taken_back(host, monkeypatch, beyond) -> None:
    """Where the way to it may go by the mesh, and even without a watcher. An address elsewhere is not tried."""
    monkeypatch.setattr(selfcheck, "PATIENCE", 0.2)
    tried: list[str] = []

    def answers(master: Master) -> bool:
        tried.append(master.address)
        return ("main", "10.100.0.7/32") not in host.kernel.routes

    monkeypatch.setattr(Master, "answers", answers)
    apply.apply(host, leaf())
    master = Master(address="10.100.0.7" if beyond else "203.0.113.99", port=4505)
    if not beyond:
        apply.apply(host, leaf(direct=(peer(7),)), master=master)
        assert tried == []
        return
    with pytest.raises(TakenBack, match=r"the master \(10\.100\.0\.7, port 4505\) is not reached any more"):
        apply.apply(host, leaf(direct=(peer(7),)), master=master)
    assert ("main", "10.100.0.7/32") not in host.kernel.routes


def test_a_first_view_that_cuts_off_the_master_leaves_nothing(host, monkeypatch) -> None:
    monkeypatch.setattr(selfcheck, "PATIENCE", 0.2)
    monkeypatch.setattr(Master, "answers", lambda _master: not host.kernel.routes)
    with pytest.raises(TakenBack) as caught:
        apply.apply(host, leaf(), master=Master(address="10.100.0.7", port=4505))
    assert (caught.value.digest, host.kernel.devices, host.kernel.routes) == (None, {}, {})


def test_it_is_tried_again_only_if_somebody_insists_or_the_view_changes(host, watched) -> None:
    """A highstate does not; the master's push does. What holds is remembered no more."""
    watcher = watched(leaf())
    watcher.broken = broken_while(1, NEW)
    bad = with_endpoint(leaf(), 1, NEW)
    told = {"wg0": bad.as_dict()}
    (first,) = offers.take(host, told)
    assert (first.taken_back, first.digest, first.gist()["taken_back"]) == (True, leaf().digest(), True)
    assert str(first.error).startswith("taken back: n1 is not heard")
    asked = len(watcher.asked)
    (second,) = offers.take(host, told)
    assert (second.taken_back, len(watcher.asked)) == (True, asked)
    watcher.broken = lambda _host: set()
    (third,) = offers.take(host, told, insists=True)
    assert (third.error, third.digest) == (None, bad.digest())
    assert Store(host=host, mesh="wg0").taken_back() is None


def test_a_command_that_fails_amid_the_turns_is_a_reason_too(host, watched, monkeypatch) -> None:
    """A port that somebody else holds: what was changed until then is changed back."""
    watched(relay(leaves=(peer(7),)))
    view = with_ports(relay(leaves=(peer(7),)), 51900, 51901)
    run = FakeHost.run

    def refuse(self: FakeHost, *argv: str, text: str = "") -> str:
        if "51901" in argv:
            raise HostError("Address already in use")
        return run(self, *argv, text=text)

    monkeypatch.setattr(FakeHost, "run", refuse)
    with pytest.raises(TakenBack, match="taken back: Address already in use"):
        apply.apply(host, view)
    assert [host.kernel.devices[n].port for n in ("wg0", "wg0-t2")] == [51820, 51822]


# --- an apply that died ----------------------------------------------------------------------------------


class Died(BaseException):
    """As by SIGKILL: nobody tidies up."""


BAD = with_endpoint(leaf(), 1, NEW)
DEATHS = {
    "after a turn's commands": (trials, "run_all"),
    "while a link is waited for": (resting, "unheard"),
    "before the view is kept": (Store, "keep"),
    "while it judges itself": (selfcheck, "missing"),
}


@pytest.fixture(params=DEATHS)
def died(request, host, watched, monkeypatch) -> PlayedWatcher:
    """An apply of BAD has died."""
    watcher = watched(leaf())
    monkeypatch.setattr(selfcheck, "LATE_PATIENCE", 0.5)
    owner, name = DEATHS[request.param]
    real, calls = getattr(owner, name), []

    def dies(*args, **kwargs):
        calls.append(name)
        if name == "run_all":
            real(*args, **kwargs)
        # The first commands only add.
        if (name, len(calls)) != ("run_all", 1):
            raise Died
        return []

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(Died):
            apply.apply(host, BAD)
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == NEW
    assert unjudged.left(host) == ["wg0"]
    return watcher


def test_what_an_apply_that_died_broke_is_taken_back_by_another_process(host, died, request) -> None:
    """Nobody need reach the master for it. If all of it was made, this very view is not tried again soon."""
    died.broken = broken_while(1, NEW)
    died.settle()
    with pytest.raises(TakenBack, match="n1 is not heard any more"):
        apply.judge(host, "wg0")
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    assert Store(host=host, mesh="wg0").view() == leaf()
    taken = Store(host=host, mesh="wg0").taken_back()
    assert (taken and taken.digest) == (BAD.digest() if "while it judges" in request.node.name else None)
    assert unjudged.left(host) == []
    assert apply.apply(host, leaf()).lines == []
    apply.judge(host, "wg0")


def test_the_next_apply_judges_it_too(host, died) -> None:
    """Of the same view: that one is refused. Of another: all goes on from there."""
    died.broken = broken_while(1, NEW)
    died.settle()
    with pytest.raises(TakenBack, match="n1 is not heard any more"):
        apply.apply(host, BAD)
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD
    better = with_endpoint(leaf(), 2, NEW)
    apply.apply(host, better)
    assert (unjudged.left(host), Store(host=host, mesh="wg0").view()) == ([], better)


def test_what_a_reboot_cut_short_is_no_fault_of_the_view(host, died) -> None:
    """The neighbours may have been without power longer."""
    host.boot_id.write_text("another")
    died.broken = broken_while(1, NEW)
    died.settle()
    with pytest.raises(TakenBack):
        apply.judge(host, "wg0")
    assert Store(host=host, mesh="wg0").taken_back() is None


def test_a_way_back_that_fails_keeps_no_other_view_from_being_applied(host, died, monkeypatch) -> None:
    died.broken = broken_while(1, NEW)
    died.settle()
    real, left = apply._return_to, ["fails"]

    def fails(*args):
        raise HostError(left.pop()) if left else AssertionError

    monkeypatch.setattr(apply, "_return_to", fails)
    apply.apply(host, leaf())
    monkeypatch.setattr(apply, "_return_to", real)
    assert (left, unjudged.left(host), Store(host=host, mesh="wg0").view()) == ([], [], leaf())
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == OLD


def test_an_apply_that_died_and_broke_nothing_is_left_and_finished_by_the_next(host, died) -> None:
    apply.judge(host, "wg0")
    assert host.kernel.devices["wg0-u1"].peers[key(1)].endpoint == NEW
    assert unjudged.left(host) == []
    apply.apply(host, BAD)
    assert (apply.apply(host, BAD).lines, Store(host=host, mesh="wg0").view()) == ([], BAD)


def test_while_an_apply_is_at_it_nobody_else_judges(host, died) -> None:
    with Store(host=host, mesh="wg0").locked():
        assert unjudged.left(host) == []
    assert unjudged.left(host) == ["wg0"]


def test_a_mesh_that_goes_takes_along_what_was_to_be_judged(host, died) -> None:
    apply.remove(host, "wg0")
    assert (unjudged.left(host), host.kernel.devices) == ([], {})


def test_what_was_left_to_judge_and_cannot_be_read_is_dropped(host, watched, caplog) -> None:
    """As by another version: the next apply compares with the kernel."""
    watched(leaf())
    path = Store(host=host, mesh="wg0").folder / UNJUDGED
    for text in (b'{"view": 1}', b"[]", b"\xff", b""):
        path.write_bytes(text)
        apply.judge(host, "wg0")
        assert not path.exists()
    assert caplog.text.count("can't be read") == 4


def test_an_apply_that_fails_or_ends_well_leaves_nothing_to_judge(host, watched) -> None:
    watcher = watched(leaf())
    apply.apply(host, with_endpoint(leaf(), 2, NEW))
    assert not (Store(host=host, mesh="wg0").folder / UNJUDGED).exists()
    watcher.broken = broken_while(1, NEW)
    with pytest.raises(TakenBack):
        apply.apply(host, BAD)
    assert not (Store(host=host, mesh="wg0").folder / UNJUDGED).exists()
