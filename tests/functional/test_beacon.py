"""The beacon on real devices, through Salt's own beacon loop: its events, their times, and its silence otherwise."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import salt.beacons

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.transition import interface_rename
from saltext_wgmesh.minion.apply import apply, executor
from saltext_wgmesh.minion.reporting import events, facts
from saltext_wgmesh.minion.state import keys, link_report_file, store
from saltext_wgmesh.minion.system.host import Host
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, named, peer

UP, DOWN, MUTE, NEW = LinkState.UP, LinkState.DOWN, LinkState.BLACKHOLE, LinkState.NEW
VIEW = leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),))
PREFIX = "salt/beacon/node1/wgmesh/"


class Minion:
    """Salt's beacon loop of one minion, on a clock that the test sets."""

    def __init__(self, opts, monkeypatch):
        self.now = 1000.0
        self._beacons = salt.beacons.Beacon(opts, {})
        source = events.EventSource(clock=lambda: self.now)
        monkeypatch.setattr(events, "process_source", lambda: source)

    def look(self, later=1.0):
        """Return the events of one call, *later* seconds after the last one: tag after the prefix → data."""
        self.now += later
        events = self._beacons.process({"wgmesh": [{"interval": 1}]}, {})
        assert all(e["tag"].startswith(PREFIX) and "error" not in e for e in events), events
        assert len({e["tag"] for e in events}) == len(events)
        return {e["tag"].removeprefix(PREFIX): e["data"] for e in events}


@pytest.fixture
def node(loaders, outside):
    """Apply the view of a leaf of n1 and n2 with a direct neighbour n7."""
    keys.ensure(Host())
    apply.apply(Host(), VIEW)


@pytest.fixture
def minion(node, minion_opts, monkeypatch):
    made = Minion(minion_opts, monkeypatch)
    # Salt counts intervals in ticks of its loop, and skips the first one.
    made.look(0.0)
    return made


def watched(**states):
    """Write a watcher's link report with these states of the links: neighbour → state."""
    links = {n: LinkStatus(neighbour=n, interface="wg0", state=s, since=1.0) for n, s in states.items()}
    link_report_file.write_report(Host(), LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links)))


def data(**fields):
    """Return the data of an event."""
    return {"id": "node1", "mesh": "wg0", **fields}


@pytest.mark.parametrize(
    ("config", "good"),
    [([{"interval": 1}], True), ([], True), ({"interval": 1}, False), ("text", False), (None, False), (["x"], False)],
    ids=["list of a mapping", "empty list", "mapping", "text", "nothing", "list of a text"],
)
def test_configuration_without_mappings_is_refused(minion_opts, config, good):
    """Only a list of mappings is valid. ``validate`` raises no exception, and each verdict has a comment."""
    valid, comment = salt.beacons.Beacon(minion_opts, {}).beacons["wgmesh.validate"](config)
    assert valid is good
    assert comment


def test_link_change_is_one_event(minion):
    """``neighbours`` lists the changed links, ``down`` all links that are not up. A new link is no event."""
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


def test_lasting_outage_is_repeated_each_minute(minion):
    """The event is repeated each minute with all links that are not up. No event comes in between."""
    watched(n1=DOWN, n2=UP, n7=UP)
    apply.apply(Host(), VIEW)
    minion.look()
    repeated = [second for second in range(1, 200) if minion.look()]
    assert repeated == [61, 122, 183]
    assert minion.look(61) == {"link-down": data(neighbours=["n1"], down=["n1"])}


def test_neighbour_removed_from_view_is_not_up(minion):
    """A link that was down and left the view causes no ``link-up`` event."""
    watched(n1=DOWN, n2=UP)
    minion.look()
    watched(n2=UP)
    assert minion.look() == {}


def send(device, address):
    """Send one packet of data into the tunnel. It gets no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        udp.sendto(b"x" * 400, (address, 9))


@pytest.fixture
def neighbour(outside, tmp_path):
    """Return n7, a second WireGuard device on the same machine, with ``start`` and ``stop``."""
    key = tmp_path / "n7.key"
    with open(key, "w") as file:
        subprocess.run(["wg", "genkey"], stdout=file, check=True)
    public = subprocess.run(["wg", "pubkey"], stdin=key.open(), capture_output=True, text=True, check=True).stdout

    def start():
        executor.create_device(Host(), "far")
        ours = ("peer", keys.public_key(Host()), "endpoint", "192.0.2.1:51820", "allowed-ips", "10.100.0.5/32")
        outside("wg", "set", "far", "private-key", str(key), "listen-port", "51830", *ours)
        outside("ip", "link", "set", "far", "up")

    return SimpleNamespace(start=start, stop=lambda: outside("ip", "link", "del", "far"), public_key=public.strip())


def heard(outside, device):
    """Return the number of bytes received from the device's only peer."""
    return int(outside("wg", "show", device, "transfer").split()[1])


def test_unwatched_link_without_answers_is_stale(minion, neighbour, outside):
    """Without a watcher the counters of the device decide: unanswered data is stale, and an idle link never is.

    There is one event, and another when a packet of the peer arrives.
    """
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
    assert link_report_file.read_report(Host(), "wg0").links["n7"].state is DOWN
    before = heard(outside, "wg0")
    neighbour.start()
    send("far", "10.100.0.5")
    wait_until(lambda: heard(outside, "wg0") > before, 20, "n7 to be heard")
    assert minion.look() == {"recovered": data(neighbours=["n7"], down=[])}
    assert minion.look() == {}


def test_unwatched_stale_link_loses_its_routes(minion, neighbour, outside):
    """Without a watcher the beacon moves the routes off a stale link, and back when it recovers."""
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


def test_drift_is_reported_when_seen_twice(minion, outside):
    """Drift is reported on the second look, then each minute. A route that was restored and removed again is new."""
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


def test_half_renamed_interfaces_are_drift(minion):
    """Interfaces of which only some have the new name are drift, as after an apply that died."""
    watched(n1=UP, n2=UP, n7=UP)
    apply.apply(Host(), interface_rename.views_of_rename(VIEW, named(VIEW, "wg9"))[0].view)
    minion.look()
    assert minion.look(16) == {}
    assert minion.look(16)["drift"]["changes"] == ["interfaces: not named after the access interface: wg9-u1"]
    apply.apply(Host(), VIEW)
    assert minion.look(16) == {}


def test_unpublished_address_is_drift(minion, outside):
    """An address that is not in the published facts is drift, until it is published too."""
    watched(n1=UP, n2=UP, n7=UP)
    store.set_published_underlay(Host(), facts.underlay(Host()))
    assert minion.look() == {}
    assert minion.look(16) == {}
    outside("ip", "address", "add", "192.0.2.77/24", "dev", "lo")
    assert minion.look(16) == {}
    (line,) = minion.look(16)["drift"]["changes"]
    assert line.startswith("facts: underlay ")
    assert "192.0.2.77" in line
    store.set_published_underlay(Host(), facts.underlay(Host()))
    assert minion.look(16) == {}


def test_unreadable_mesh_silences_no_other(minion, caplog):
    """A mesh with a damaged state file causes one log line and reports drift. Events of other meshes still come."""
    broken = Path(Host().state_dir) / "broken"
    broken.mkdir()
    (broken / "owned.json").write_text('{"interfaces": [], "prefixes": []}')
    (broken / "view.json").write_text("{broken")
    watched(n1=DOWN, n2=UP, n7=UP)
    assert minion.look().keys() == {"link-down", "drift"}
    assert minion.look() == {}
    assert [r.getMessage() for r in caplog.records if "is damaged" in r.getMessage()] == [
        f"{broken}/view.json is damaged (JSONDecodeError) and is not used: the next apply writes it again"
    ]
