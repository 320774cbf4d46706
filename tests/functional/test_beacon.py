"""The beacon on real devices, by Salt's own beacon machinery: what it fires, when, and that it is silent else."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import time
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import salt.beacons

from saltext_wgmesh.core import renaming
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.minion import apply, facts, keys, linkfile, running, signals, store
from saltext_wgmesh.minion.host import Host
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, named, peer

UP, DOWN, MUTE, NEW = LinkState.UP, LinkState.DOWN, LinkState.MUTE, LinkState.NEW
VIEW = leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),))
PREFIX = "salt/beacon/node1/wgmesh/"


class Minion:
    """Salt's beacon loop of one minion, on a clock that the test sets."""

    def __init__(self, opts, monkeypatch):
        self.now = 1000.0
        self._beacons = salt.beacons.Beacon(opts, {})
        monkeypatch.setattr(signals, "MEMORY", signals.Signals())
        monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: self.now, time=time.time))

    def look(self, later=1.0):
        """The events of one look, *later* seconds after the last one: tag after the prefix → data."""
        self.now += later
        events = self._beacons.process({"wgmesh": [{"interval": 1}]}, {})
        assert all(e["tag"].startswith(PREFIX) and "error" not in e for e in events), events
        assert len({e["tag"] for e in events}) == len(events)
        return {e["tag"].removeprefix(PREFIX): e["data"] for e in events}


@pytest.fixture
def node(loaders, outside):
    """A leaf of n1 and n2 with a direct neighbour n7, which has applied its view."""
    keys.ensure(Host())
    apply.apply(Host(), VIEW)


@pytest.fixture
def minion(node, minion_opts, monkeypatch):
    made = Minion(minion_opts, monkeypatch)
    # Salt counts intervals in ticks of its loop: the first one is passed over.
    made.look(0.0)
    return made


def watched(**states):
    """The watcher's file says that the links to the neighbours are so."""
    links = {n: Link(neighbour=n, interface="wg0", state=s, since=1.0) for n, s in states.items()}
    linkfile.write(Host(), LinkReport(mesh="wg0", watched=True, links=MappingProxyType(links)))


def data(**fields):
    """The whole of an event's data."""
    return {"id": "node1", "mesh": "wg0", **fields}


@pytest.mark.parametrize(
    ("config", "good"),
    [([{"interval": 1}], True), ([], True), ({"interval": 1}, False), ("text", False), (None, False), (["x"], False)],
)
def test_a_configuration_that_is_no_list_of_mappings_is_refused_with_a_reason(minion_opts, config, good):
    """``validate`` raises for nothing."""
    valid, comment = salt.beacons.Beacon(minion_opts, {}).beacons["wgmesh.validate"](config)
    assert valid is good
    assert comment


def test_links_that_die_and_come_back_are_one_event_each(minion):
    """``neighbours`` are those that changed, ``down`` all that are in trouble; a new link is no news."""
    watched(n1=UP, n2=UP, n7=NEW)
    assert minion.look() == {}
    watched(n1=DOWN, n2=UP, n7=MUTE)
    assert minion.look() == {"link-down": data(neighbours=["n1", "n7"], down=["n1", "n7"])}
    watched(n1=DOWN, n2=DOWN, n7=UP)
    assert minion.look() == {
        "link-down": data(neighbours=["n2"], down=["n1", "n2"]),
        "link-up": data(neighbours=["n7"], down=["n1", "n2"]),
    }
    watched(n1=UP, n2=UP, n7=UP)
    assert minion.look() == {"link-up": data(neighbours=["n1", "n2"], down=[])}
    assert minion.look() == {}


def test_what_lasts_is_told_again_each_minute(minion):
    """All that is in trouble, and nothing between."""
    watched(n1=DOWN, n2=UP, n7=UP)
    apply.apply(Host(), VIEW)
    minion.look()
    told = [second for second in range(1, 200) if minion.look()]
    assert told == [61, 122, 183]
    assert minion.look(61) == {"link-down": data(neighbours=["n1"], down=["n1"])}


def test_a_neighbour_that_left_the_view_is_not_told_to_be_back(minion):
    """Its link is gone, not up."""
    watched(n1=DOWN, n2=UP)
    minion.look()
    watched(n2=UP)
    assert minion.look() == {}


def send(device, address):
    """One packet of data goes into the tunnel; nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        udp.sendto(b"x" * 400, (address, 9))


@pytest.fixture
def neighbour(outside, tmp_path):
    """n7 as a second WireGuard device of the same machine: ``start`` and ``stop`` it."""
    key = tmp_path / "n7.key"
    with open(key, "w") as file:
        subprocess.run(["wg", "genkey"], stdout=file, check=True)
    public = subprocess.run(["wg", "pubkey"], stdin=key.open(), capture_output=True, text=True, check=True).stdout

    def start():
        running.make_device(Host(), "far")
        ours = ("peer", keys.public_key(Host()), "endpoint", "192.0.2.1:51820", "allowed-ips", "10.100.0.5/32")
        outside("wg", "set", "far", "private-key", str(key), "listen-port", "51830", *ours)
        outside("ip", "link", "set", "far", "up")

    return SimpleNamespace(start=start, stop=lambda: outside("ip", "link", "del", "far"), public_key=public.strip())


def heard(outside, device):
    """Bytes that came from its one peer."""
    return int(outside("wg", "show", device, "transfer").split()[1])


def test_without_a_watcher_unanswered_data_is_stale_and_an_idle_link_never_is(minion, neighbour, outside):
    """By the counters of real devices. It is told once, and again when the peer is heard."""
    n7 = peer(7, endpoint="192.0.2.1:51830", public_key=neighbour.public_key)
    apply.apply(Host(), leaf(direct=(n7,)))
    neighbour.start()
    send("wg0", "10.100.0.7")
    wait_until(lambda: heard(outside, "wg0"), 20, "the handshake with n7")
    assert [minion.look(s) for s in (1, 12, 100)] == [{}] * 3
    neighbour.stop()
    assert [minion.look(s) for s in (12, 100)] == [{}] * 2
    send("wg0", "10.100.0.7")
    assert [minion.look(s) for s in (1, 10)] == [{}] * 2
    assert minion.look(2) == {"stale": data(neighbours=["n7"], down=["n7"])}
    assert minion.look(2) == {}
    assert linkfile.read(Host(), "wg0").links["n7"].state is DOWN
    before = heard(outside, "wg0")
    neighbour.start()
    send("far", "10.100.0.5")
    wait_until(lambda: heard(outside, "wg0") > before, 20, "n7 to be heard")
    assert minion.look() == {"recovered": data(neighbours=["n7"], down=[])}
    assert minion.look() == {}


def test_without_a_watcher_the_routes_leave_a_stale_link_and_come_back(minion, neighbour, outside):
    """By the beacon itself: no push follows where no view changes."""
    n1 = peer(1, *NETWORKS, endpoint="192.0.2.1:51830", public_key=neighbour.public_key)
    view = leaf()
    access, uplink, other = view.interfaces
    apply.apply(Host(), dataclasses.replace(view, interfaces=(access, dataclasses.replace(uplink, peers=(n1,)), other)))
    neighbour.start()
    send("wg0-u1", "10.100.0.9")
    wait_until(lambda: heard(outside, "wg0-u1"), 20, "the handshake with n1")
    minion.look()
    neighbour.stop()
    send("wg0-u1", "10.100.0.9")
    minion.look(1)
    assert "dev wg0-u1" in outside("ip", "route", "get", "10.100.0.9")
    assert minion.look(12).keys() == {"stale"}
    assert "dev wg0-u2" in outside("ip", "route", "get", "10.100.0.9")
    before = heard(outside, "wg0-u1")
    neighbour.start()
    send("far", "10.100.0.5")
    wait_until(lambda: heard(outside, "wg0-u1") > before, 20, "n1 to be heard")
    assert minion.look().keys() == {"recovered"}
    assert "dev wg0-u1" in outside("ip", "route", "get", "10.100.0.9")


def test_drift_is_told_when_it_is_seen_twice_and_again_each_minute(minion, outside):
    """A route that somebody took away; mended and taken away again it is news again."""
    watched(n1=UP, n2=UP, n7=UP)
    minion.look()
    outside("ip", "route", "del", "10.100.0.7")
    assert minion.look(16) == {}
    (line,) = minion.look(16)["drift"]["changes"]
    assert "10.100.0.7/32" in line
    assert [second for second in range(16, 150, 16) if minion.look(16)] == [64, 128]
    apply.apply(Host(), VIEW)
    assert minion.look(16) == {}
    outside("ip", "route", "del", "10.100.0.7")
    assert [list(minion.look(16)) for _ in range(2)] == [[], ["drift"]]


def test_names_that_only_some_interfaces_have_got_are_drift(minion):
    """An apply that died on the way: the master may know nothing of it, and want again what the node had before."""
    watched(n1=UP, n2=UP, n7=UP)
    apply.apply(Host(), renaming.steps(VIEW, named(VIEW, "wg9"))[0].view)
    minion.look()
    assert minion.look(16) == {}
    assert minion.look(16)["drift"]["changes"] == ["interfaces: not named after the access interface: wg9-u1"]
    apply.apply(Host(), VIEW)
    assert minion.look(16) == {}


def test_other_addresses_than_the_published_ones_are_drift(minion, outside):
    """Until they are published too."""
    watched(n1=UP, n2=UP, n7=UP)
    store.keep_told_underlay(Host(), facts.underlay(Host()))
    assert minion.look() == {}
    assert minion.look(16) == {}
    outside("ip", "address", "add", "192.0.2.77/24", "dev", "lo")
    assert minion.look(16) == {}
    (line,) = minion.look(16)["drift"]["changes"]
    assert line.startswith("facts: underlay ")
    assert "192.0.2.77" in line
    store.keep_told_underlay(Host(), facts.underlay(Host()))
    assert minion.look(16) == {}


def test_a_mesh_whose_state_can_not_be_read_is_no_event_and_silences_no_other(minion, caplog):
    """Salt would fire an empty event each second; the log has it instead, once."""
    broken = Path(Host().state_dir) / "broken"
    broken.mkdir()
    (broken / "owned.json").write_text('{"interfaces": [], "prefixes": []}')
    (broken / "view.json").write_text("{broken")
    watched(n1=DOWN, n2=UP, n7=UP)
    assert minion.look().keys() == {"link-down"}
    assert minion.look() == {}
    assert [r.getMessage() for r in caplog.records if "is damaged" in r.getMessage()] == [
        f"wgmesh broken: how its links are can't be told: {broken}/view.json is damaged: delete it and apply again"
    ]
