"""Applying views to a node made of values: by walks through random views, and the cases worth a name."""

from __future__ import annotations

import contextlib
import stat
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import preshared
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.types import Route, View
from saltext_wgmesh.minion import apply, keys
from saltext_wgmesh.minion.store import Store
from tests import nodeviews
from tests.nodeviews import key, leaf, peer, relay
from tests.unit.fakehost import FakeDevice, FakeHost, FakePeer, Kernel, with_ipv6

HOUR = 3600
ROUTES = "ip -json route show table all proto 87"
RULES = [f"ip -{family} -json rule show priority 8700" for family in (4, 6)]
ADVERTISED = "ip -6 -json route show default"


def node(folder: Path) -> FakeHost:
    """A node with a key and nothing else."""
    host = FakeHost.below(folder, Kernel(sysctls=with_ipv6()))
    keys.ensure(host)
    return host


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return node(tmp_path)


# --- walks ---------------------------------------------------------------------------------------------

NUMBERS = st.integers(6, 9)
PRESHARED = {str(preshared.identifier(key(n))): key(n) for n in (101, 102)}
"""Two preshared keys, by their identifiers."""
FIRST, SECOND = sorted(PRESHARED)
ENDPOINTS = st.sampled_from([None, "192.0.2.7:51820", "192.0.2.8:51820", "[2001:db8::7]:51820"])


def known(host: FakeHost, view: View) -> View:
    """*view* as of a master that knows this node's key."""
    return replace(view, keys=(str(keys.public_key(host)),))


def files_of(host: FakeHost) -> dict[str, str]:
    """The preshared keys that the node keeps, by the names of their files."""
    folder = Store(host=host, mesh="wg0").preshared
    assert not folder.exists() or stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = sorted(folder.iterdir()) if folder.exists() else []
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} <= {0o600}
    return {path.name: path.read_text().strip() for path in found}


@st.composite
def neighbours(draw: st.DrawFn) -> tuple:
    """Some of n6 to n9, host addresses and subnets dealt among them at random."""
    chosen = sorted(draw(st.sets(NUMBERS)))
    prefixes = [f"10.100.0.{n}/32" for n in range(6, 10)] + [f"192.168.{n}.0/24" for n in range(3)]
    owners = {p: draw(st.sampled_from(chosen)) for p in prefixes if chosen and draw(st.booleans())}
    return tuple(
        peer(
            number,
            *([p for p, owner in owners.items() if owner == number] or [f"10.100.8.{number}/32"]),
            endpoint=draw(ENDPOINTS),
            keepalive=draw(st.sampled_from([0, 25])),
            preshared=draw(st.sampled_from([None, FIRST, SECOND])),
        )
        for number in chosen
    )


@st.composite
def views(draw: st.DrawFn) -> View:
    """A view of a leaf or a relay with any of two relays, or of a node of a mesh without relays."""
    near = draw(neighbours())
    far = tuple(sorted(draw(st.sets(st.integers(1, 3), max_size=2))))
    if draw(st.booleans()):
        return replace(relay(leaves=near, trunks=far), mtu=draw(st.sampled_from([1380, 1420])))
    return leaf(direct=near, relays=far, via=far[-1] if far else 1, port=draw(st.sampled_from([51820, 51821, 51822])))


def peers_of(kernel: Kernel) -> dict[tuple[str, str], tuple]:
    """Each peer's configuration, by device and key."""
    return {
        (name, public_key): (p.endpoint, p.keepalive, frozenset(p.allowed_ips), p.preshared)
        for name, device in kernel.devices.items()
        for public_key, p in (device.peers or {}).items()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(views(), min_size=2, max_size=5))
def test_any_walk_through_views(walk: list[View]) -> None:
    """After each view nothing is left to do, no peer that stays as it was is touched, and leaving leaves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        host = node(Path(folder))
        for view in (known(host, v) for v in walk):
            foretold = apply.apply(host, view, dry_run=True)
            before = peers_of(host.kernel)
            host.kernel.touched.clear()
            done = apply.apply(host, view, given=PRESHARED)
            after = peers_of(host.kernel)
            same = {k for k, config in before.items() if after.get(k) == config}
            assert not same & set(host.kernel.touched)
            assert done.lines == foretold.lines
            assert apply.apply(host, view).lines == []
            assert set(host.kernel.devices) == {i.name for i in view.interfaces}
            assert {p.stem for p in host.conf_dir.glob("*.conf")} == {i.name for i in view.interfaces}
            remembered = [v for v in (Store(host=host, mesh="wg0").previous(), view) if v]
            needed = {name for v in remembered for name in preshared.identifiers(v)}
            assert files_of(host) == {name: PRESHARED[name] for name in needed}
            peers = {(i.name, p.public_key): "".join(p.preshared) for i in view.interfaces for p in i.peers}
            assert {k: config[3] for k, config in after.items()} == {k: PRESHARED.get(p) for k, p in peers.items()}
        apply.remove(host, "wg0")
        assert (host.kernel.devices, host.kernel.routes, host.kernel.rules) == ({}, {}, set())
        assert list(host.conf_dir.glob("*.conf")) == []
        assert not (host.state_dir / "wg0").exists()


@settings(max_examples=30, deadline=None)
@given(st.tuples(views(), views(), views()), st.integers(0, 60), st.integers(0, 20))
def test_what_broke_off_is_finished_by_the_next_run(walk: tuple[View, View, View], good: int, later: int) -> None:
    """Wherever a command fails, the next run leads to its view, and no device or route is orphaned."""
    with tempfile.TemporaryDirectory() as folder:
        host = node(Path(folder))
        first, second, third = (known(host, v) for v in walk)
        apply.apply(host, first, given=PRESHARED)
        with BreakAfter(host, good), contextlib.suppress(HostError):
            apply.apply(host, second, given=PRESHARED)
        apply.apply(host, third, given=PRESHARED)
        assert set(host.kernel.devices) == {i.name for i in third.interfaces}
        with BreakAfter(host, later), contextlib.suppress(HostError):
            apply.remove(host, "wg0")
        apply.remove(host, "wg0")
        assert (host.kernel.devices, host.kernel.routes, host.kernel.rules) == ({}, {}, set())


class BreakAfter:
    """Within, every command after the first *good* ones fails."""

    def __init__(self, host: FakeHost, good: int) -> None:
        self.host, self.good = host, good

    def __enter__(self) -> None:
        self.run = FakeHost.run
        left = [self.good]

        def run(host: FakeHost, *argv: str, text: str = "") -> str:
            left[0] -= 1
            if left[0] < 0:
                raise HostError("the power is out")
            return self.run(host, *argv, text=text)

        FakeHost.run = run  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        FakeHost.run = self.run  # type: ignore[method-assign]


# --- what a first apply makes --------------------------------------------------------------------------


def test_a_leaf_of_two_relays(host: FakeHost) -> None:
    """Each interface has the node's addresses and reverse-path setting; routes lead to the first uplink."""
    view = leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),))
    report = apply.apply(host, view)
    assert report.digest == view.digest()
    assert sorted(host.kernel.devices) == ["wg0", "wg0-u1", "wg0-u2"]
    for device in host.kernel.devices.values():
        assert sorted(device.addresses) == ["10.100.0.5/32", "fd00:64::5/128"]
        assert (device.up, device.mtu, device.public_key) == (True, 1420, keys.public_key(host))
    uplink = host.kernel.devices["wg0-u2"].peers[key(2)]
    assert uplink == FakePeer(endpoint="192.0.2.20:51820", keepalive=25, allowed_ips={"10.100.0.0/16", "fd00:64::/64"})
    assert host.kernel.routes == {
        ("main", "10.100.0.0/16"): {"dev": "wg0-u1", "proto": "87", "src": "10.100.0.5"},
        ("main", "fd00:64::/64"): {"dev": "wg0-u1", "proto": "87", "src": "fd00:64::5"},
        ("main", "10.100.0.7/32"): {"dev": "wg0", "proto": "87", "src": "10.100.0.5"},
    }
    assert host.kernel.rules == set()
    assert host.sysctl("net/ipv4/conf/wg0-u1/rp_filter") == "2"
    assert host.sysctl("net/ipv4/conf/wg0-u1/send_redirects") == "0"
    assert host.sysctl("net/ipv4/ip_forward") == "0"


def test_a_relay_with_a_trunk(host: FakeHost) -> None:
    """A relay forwards, sends no redirects, and looks packets from a trunk up in a table of their own."""
    apply.apply(host, relay(leaves=(peer(7),)))
    assert host.kernel.rules == {(4, "wg0-t2", "870028683"), (6, "wg0-t2", "870028683")}
    assert host.kernel.routes["870028683", "10.100.0.7/32"]["dev"] == "wg0"
    assert "dev" not in host.kernel.routes["870028683", "10.100.0.0/16"]
    assert host.kernel.routes["main", "10.100.0.0/16"]["dev"] == "wg0-t2"
    assert host.kernel.devices["wg0-t2"].port == 51822
    for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        assert host.sysctl(setting) == "1"
    assert host.sysctl("net/ipv4/conf/all/send_redirects") == "0"


def test_a_node_without_ipv6(host: FakeHost) -> None:
    """Where IPv6 is disabled, all that is IPv6 is left out, and nothing fails or is found to differ."""
    host.kernel.sysctls["net/ipv6/conf/all/disable_ipv6"] = "1"
    apply.apply(host, relay(leaves=(peer(7),)))
    assert host.kernel.devices["wg0"].addresses == ["10.100.0.1/32"]
    assert [p for _, p in host.kernel.routes if ":" in p] == []
    assert host.sysctl("net/ipv6/conf/all/forwarding") == "0"
    assert apply.apply(host, relay(leaves=(peer(7),))).lines == []


def test_userspace_where_the_kernel_has_none(host: FakeHost) -> None:
    """wireguard-go makes the device if the kernel can't; without either the error says what to install."""
    host.kernel.has_wireguard = False
    with pytest.raises(HostError, match="wireguard-go is not installed"):
        apply.apply(host, leaf(relays=()))
    host.kernel.programs.add("wireguard-go")
    apply.apply(host, leaf(relays=()))
    assert ("wireguard-go", "wg0") in host.kernel.ran


# --- the fewest changes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "commands"),
    [
        (leaf(direct=(peer(7),)), ["ip -json address", "wg show all dump", ROUTES]),
        (relay(trunks=()), ["ip -json address", "wg show all dump", ROUTES, ADVERTISED]),
        (relay(), ["ip -json address", "wg show all dump", ROUTES, *RULES, ADVERTISED]),
    ],
)
def test_nothing_to_do_is_one_look(host: FakeHost, view: View, commands: list[str]) -> None:
    """A run that finds nothing to do reads each thing once, and runs nothing else."""
    apply.apply(host, view)
    host.kernel.ran.clear()
    assert apply.apply(host, view).changed is False
    assert sorted(" ".join(argv) for argv in host.kernel.ran) == sorted(commands)


def test_a_subnet_moves_in_one_step(host: FakeHost) -> None:
    """The peer that gains the subnet is set, and the one that loses it is not: the kernel took it already."""
    subnet = "192.168.7.0/24"
    apply.apply(host, leaf(direct=(peer(7, "10.100.0.7/32", subnet), peer(8, "10.100.0.8/32")), relays=()))
    host.kernel.touched.clear()
    report = apply.apply(host, leaf(direct=(peer(7, "10.100.0.7/32"), peer(8, "10.100.0.8/32", subnet)), relays=()))
    assert host.kernel.touched == [("wg0", key(8))]
    assert host.kernel.devices["wg0"].peers[key(7)].allowed_ips == {"10.100.0.7/32"}
    assert "~ wg0 peer n7: allowed-ips 10.100.0.7/32,192.168.7.0/24 -> allowed-ips 10.100.0.7/32" in report.lines


def test_a_new_path_is_made_before_the_old_goes(host: FakeHost) -> None:
    """Peers are added, then routes switched, then the old device removed."""
    apply.apply(host, leaf(relays=(1,), via=1))
    lines = apply.apply(host, leaf(relays=(2,), via=2)).lines
    added = next(i for i, line in enumerate(lines) if line.startswith("+ wg0-u2 peer n2"))
    switched = next(i for i, line in enumerate(lines) if line.startswith("~ routes 10.100.0.0/16"))
    removed = lines.index("- wg0-u1: present")
    assert added < switched < removed


def test_ports_that_change_places(host: FakeHost) -> None:
    """A port that one interface gives up can be another's in the same apply."""
    view = relay(trunks=(1, 2))
    apply.apply(host, view)
    access, first, second = view.interfaces
    swapped = (
        replace(access, listen_port=51822),
        replace(first, listen_port=51820),
        replace(second, listen_port=51821),
    )
    apply.apply(host, replace(view, interfaces=swapped))
    assert [host.kernel.devices[n].port for n in ("wg0", "wg0-t1", "wg0-t2")] == [51822, 51820, 51821]


def test_drift_is_mended_and_told(host: FakeHost) -> None:
    """What somebody changed by hand is set back: a peer, an address, a route, a rule, a kernel setting."""
    view = relay(leaves=(peer(7),))
    apply.apply(host, view)
    host.kernel.devices["wg0"].peers["stranger"] = FakePeer(allowed_ips={"10.100.0.66/32"})
    host.kernel.devices["wg0"].addresses += ["10.100.0.66/32"]
    host.kernel.devices["wg0"].mtu = 1400
    del host.kernel.routes["main", "10.100.0.7/32"]
    host.kernel.rules.remove((6, "wg0-t2", "870028683"))
    host.kernel.sysctls["net/ipv4/conf/wg0/rp_filter"] = "1"
    assert apply.apply(host, view).lines == [
        "~ wg0 mtu: 1400 -> 1420",
        "~ sysctl net.ipv4.conf.wg0.rp_filter: 1 -> 2",
        "+ routes 10.100.0.7/32: wg0 from 10.100.0.1",
        "+ rules IPv6 from wg0-t2: table 870028683",
        "- wg0 peer stranger: endpoint none keepalive 0 allowed-ips 10.100.0.66/32 key stranger",
        "- wg0 address: 10.100.0.66/32",
    ]


# --- endpoints -----------------------------------------------------------------------------------------


def roamed(host: FakeHost, *, handshake_age: int) -> FakePeer:
    """n7, told to be at 192.0.2.7, last heard at 198.51.100.1."""
    apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),), relays=()))
    found = host.kernel.devices["wg0"].peers[key(7)]
    found.endpoint, found.handshake_at = "198.51.100.1:1024", int(time.time()) - handshake_age
    return found


def test_a_peer_that_roamed_and_answers_is_left_alone(host: FakeHost) -> None:
    """A fresh handshake proves the place where the peer was heard."""
    found = roamed(host, handshake_age=60)
    assert apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),), relays=())).lines == []
    assert found.endpoint == "198.51.100.1:1024"


def test_a_peer_that_roamed_and_is_silent_is_set_back(host: FakeHost) -> None:
    """Without a handshake for longer than a session lives, the planned endpoint is worth another try."""
    found = roamed(host, handshake_age=HOUR)
    lines = apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),), relays=())).lines
    assert lines == ["~ wg0 peer n7: endpoint 198.51.100.1:1024 -> endpoint 192.0.2.7:51820"]
    assert found.endpoint == "192.0.2.7:51820"


def test_a_new_endpoint_in_the_view_is_set_at_once(host: FakeHost) -> None:
    """When the plan itself moves a peer, a fresh handshake at the old place does not hold it up."""
    found = roamed(host, handshake_age=1)
    apply.apply(host, leaf(direct=(peer(7, endpoint="192.0.2.77:51820"),), relays=()))
    assert found.endpoint == "192.0.2.77:51820"


def test_a_peer_without_a_planned_endpoint_keeps_the_one_it_was_heard_at(host: FakeHost) -> None:
    """None in the view stands for wherever the peer is."""
    found = roamed(host, handshake_age=HOUR)
    assert apply.apply(host, leaf(direct=(peer(7),), relays=())).lines != []
    assert found.endpoint == "198.51.100.1:1024"
    assert apply.apply(host, leaf(direct=(peer(7),), relays=())).lines == []


def test_a_name_is_looked_up_once(host: FakeHost) -> None:
    """A DNS name can't be compared with an address, so it is looked up when the peer is made, and then left."""
    view = leaf(direct=(peer(7, endpoint="n7.example.com:51820"), peer(8)), relays=())
    host.kernel.names["n7.example.com:51820"] = "192.0.2.7:51820"
    apply.apply(host, view)
    assert host.kernel.devices["wg0"].peers[key(7)].endpoint == "192.0.2.7:51820"
    host.kernel.devices["wg0"].peers[key(7)].endpoint = "198.51.100.1:1024"
    assert apply.apply(host, view).lines == []


def test_a_name_that_does_not_resolve_holds_up_nothing_else(host: FakeHost) -> None:
    """All else is applied, the error names the name, and the next apply tries again."""
    view = leaf(direct=(peer(7, endpoint="n7.example.com:51820"), peer(8)), relays=(1,))
    with pytest.raises(HostError, match=r"n7\.example\.com"):
        apply.apply(host, view)
    assert ("main", "10.100.0.0/16") in host.kernel.routes
    assert set(host.kernel.devices["wg0"].peers) == {key(7), key(8)}
    host.kernel.names["n7.example.com:51820"] = "192.0.2.7:51820"
    lines = apply.apply(host, view).lines
    assert lines[0] == "~ wg0 peer n7: endpoint none -> endpoint n7.example.com:51820"
    assert host.kernel.devices["wg0"].peers[key(7)].endpoint == "192.0.2.7:51820"


# --- whose it is ---------------------------------------------------------------------------------------


def test_a_foreign_device_is_not_touched(host: FakeHost) -> None:
    """A device of that name that we did not make stops the apply before anything is changed."""
    host.kernel.devices["wg0-u2"] = FakeDevice(peers={key(9): FakePeer()})
    with pytest.raises(HostError, match=r"wg0-u2 exists on this node and was not made by mesh wg0"):
        apply.apply(host, leaf())
    assert host.kernel.devices == {"wg0-u2": FakeDevice(peers={key(9): FakePeer()})}


def test_a_route_that_somebody_made_is_not_replaced(host: FakeHost) -> None:
    """It stops the apply before anything is changed; one over a device of the mesh is the mesh's."""
    foreign = {("main", "10.100.0.0/16"): {"dev": "eth1", "proto": "static"}}
    host.kernel.routes.update(foreign)
    for dry_run in (True, False):
        with pytest.raises(HostError, match=r"10\.100\.0\.0/16 of mesh wg0 has a route by eth1 .* nothing was changed"):
            apply.apply(host, leaf(), dry_run=dry_run)
    assert (host.kernel.routes, host.kernel.devices) == (foreign, {})
    del host.kernel.routes["main", "10.100.0.0/16"]
    apply.apply(host, leaf())
    host.kernel.routes["main", "10.100.0.0/16"] = {"dev": "wg0-u1", "proto": "boot"}
    assert len(apply.apply(host, leaf()).lines) == 1


def test_a_name_that_was_ours_once_is_free_again(host: FakeHost) -> None:
    """After an interface is gone, a device that somebody makes under its name is not ours to remove."""
    apply.apply(host, leaf(relays=(1, 2)))
    apply.apply(host, leaf(relays=(1,)))
    host.kernel.devices["wg0-u2"] = FakeDevice(peers={})
    assert apply.apply(host, leaf(relays=(1,))).lines == []
    assert "wg0-u2" in host.kernel.devices


def test_a_device_that_booted_from_our_file_is_ours(host: FakeHost) -> None:
    """Even with our memory lost, the file for boot tells whose the device is."""
    apply.apply(host, leaf(relays=()))
    Store(host=host, mesh="wg0").forget()
    assert apply.apply(host, leaf(relays=())).lines == []


def test_an_owned_device_that_wg_does_not_know_is_an_error(host: FakeHost) -> None:
    """A device without its wireguard-go can't be set; the error says how to start anew."""
    apply.apply(host, leaf(relays=()))
    host.kernel.devices["wg0"].peers = None
    with pytest.raises(HostError, match="'ip link del wg0'"):
        apply.apply(host, leaf(relays=()))


def test_meshes_do_not_see_each_other(host: FakeHost) -> None:
    """Routes, rules and unreachable prefixes of one mesh are none of another's business."""
    other = leaf(mesh="wg1", relays=(), port=51900)
    beyond = Route(prefixes=("10.200.0.0/16",), via=())
    other = replace(other, addresses=("10.200.0.5",), networks=beyond.prefixes, routes=(beyond,))
    apply.apply(host, relay(leaves=(peer(7),)))
    held = dict(host.kernel.routes), set(host.kernel.rules)
    apply.apply(host, other)
    assert host.kernel.routes["main", "10.200.0.0/16"] == {"proto": "87"}
    assert apply.apply(host, relay(leaves=(peer(7),))).lines == []
    assert apply.apply(host, other).lines == []
    apply.remove(host, "wg1")
    assert (host.kernel.routes, host.kernel.rules) == held


# --- preshared keys ------------------------------------------------------------------------------------


def test_a_preshared_key_is_set_changed_and_taken_away_in_words_that_tell_nothing(host: FakeHost) -> None:
    """Only the peer that it is of is touched, and only that of it; the node keeps the key of the view before."""
    views = [known(host, leaf(direct=(peer(7, preshared=name), peer(8)))) for name in (None, FIRST, SECOND, None)]
    apply.apply(host, views[0])
    told = []
    for view in views[1:]:
        host.kernel.touched.clear()
        told += [line for line in apply.apply(host, view, given=PRESHARED).lines if "boot" not in line]
        assert host.kernel.touched == [("wg0", key(7))]
    assert told == [
        "~ wg0 peer n7: preshared key none -> preshared key set",
        "~ wg0 peer n7: preshared key set -> preshared key another",
        "~ wg0 peer n7: preshared key set -> preshared key none",
    ]
    assert host.kernel.devices["wg0"].peers[key(7)].preshared is None
    assert files_of(host) == {SECOND: PRESHARED[SECOND]}
    assert not any(secret in repr(host.kernel.ran) for secret in PRESHARED.values())


def test_a_node_goes_back_and_mends_drift_with_the_keys_that_it_has(host: FakeHost) -> None:
    """Neither needs the master. A key that somebody took away is drift."""
    first, second = (known(host, leaf(direct=(peer(7, preshared=name),))) for name in (FIRST, SECOND))
    apply.apply(host, first, given=PRESHARED)
    apply.apply(host, second, given=PRESHARED)
    apply.rollback(host, "wg0")
    assert host.kernel.devices["wg0"].peers[key(7)].preshared == PRESHARED[FIRST]
    host.kernel.devices["wg0"].peers[key(7)].preshared = None
    assert apply.apply(host, first).lines == ["~ wg0 peer n7: preshared key none -> preshared key set"]


def test_a_key_that_is_nowhere_is_an_error_before_anything_is_changed(host: FakeHost) -> None:
    """It says with whom, and what to do; a file that was damaged counts as lost, and is written anew."""
    view = known(host, leaf(direct=(peer(7, preshared=FIRST),)))
    with pytest.raises(HostError, match=r"the preshared keys with n7 are neither in this node's pillar nor on it"):
        apply.apply(host, view)
    assert (host.kernel.devices, files_of(host)) == ({}, {})
    apply.apply(host, view, given=PRESHARED)
    (Store(host=host, mesh="wg0").preshared / FIRST).write_text(PRESHARED[FIRST][:20])
    with pytest.raises(HostError, match="n7"):
        apply.apply(host, view)
    apply.apply(host, view, given=PRESHARED)
    assert files_of(host) == {FIRST: PRESHARED[FIRST]}


def test_another_key_of_the_node_and_the_preshared_keys_with_it_are_one_command(host: FakeHost) -> None:
    """Between two, a handshake could come: with the one and without the other. The files for boot go with the key that
    the node will have then."""
    apply.apply(host, known(host, leaf(direct=(peer(7, preshared=FIRST),), relays=())), given=PRESHARED)
    own = (str(keys.public_key(host)), keys.prepare(host))
    both = replace(peer(7), preshared=(FIRST, SECOND))
    view = replace(leaf(direct=(both,), relays=()), keys=own)
    apply.apply(host, view, given=PRESHARED)
    assert host.kernel.devices["wg0"].peers[key(7)].preshared == PRESHARED[FIRST]
    host.kernel.ran.clear()
    apply.apply(host, replace(view, turn_to=own[1]), given=PRESHARED)
    (words,) = [argv for argv in host.kernel.ran if argv[:2] == ("wg", "set")]
    assert ("private-key" in words, "preshared-key" in words) == (True, True)
    assert host.kernel.devices["wg0"].peers[key(7)].preshared == PRESHARED[SECOND]
    assert keys.public_key(host) == own[1]
    assert f"preshared/{SECOND} " in (host.conf_dir / "wg0.conf").read_text()
    assert apply.apply(host, replace(view, turn_to=own[1])).lines == []


def test_who_lost_its_key_keeps_the_preshared_keys_of_the_one_that_it_runs(host: FakeHost) -> None:
    """Until it may turn: its neighbours go by that key too."""
    apply.apply(host, known(host, leaf(direct=(peer(7, preshared=FIRST),), relays=())), given=PRESHARED)
    lost = str(keys.public_key(host))
    host.key_file.unlink()
    own = (lost, keys.ensure(host))
    both = replace(peer(7), preshared=(FIRST, SECOND))
    view = replace(leaf(direct=(both,), relays=()), keys=own)
    apply.apply(host, view, given=PRESHARED)
    device = host.kernel.devices["wg0"]
    assert (device.peers[key(7)].preshared, keys.lost(host)) == (PRESHARED[FIRST], lost)
    apply.apply(host, replace(view, turn_to=own[1]), given=PRESHARED)
    assert (device.peers[key(7)].preshared, keys.lost(host)) == (PRESHARED[SECOND], None)


# --- memory --------------------------------------------------------------------------------------------


def test_rollback_and_memory(host: FakeHost) -> None:
    """The view before is kept, and applying one view twice does not forget it."""
    first, second = leaf(direct=(peer(7),)), leaf(direct=(peer(8),))
    for view in (first, second, second):
        apply.apply(host, view)
    store = Store(host=host, mesh="wg0")
    assert (store.view(), store.previous()) == (second, first)
    assert apply.rollback(host, "wg0").digest == first.digest()
    assert (store.view(), store.previous()) == (first, second)


def test_an_apply_that_changes_nothing_at_all_fails_on_what_remains(host: FakeHost, monkeypatch) -> None:
    """A kernel that ignores a change is found out: what still differs is named."""
    monkeypatch.setattr(FakeHost, "set_sysctl", lambda *_: None)
    with pytest.raises(HostError, match=r"this still differs: .*net\.ipv4\.conf\.wg0\.rp_filter: 0 -> 2"):
        apply.apply(host, leaf(relays=()))
    assert Store(host=host, mesh="wg0").view() is None


def test_without_a_key(host: FakeHost) -> None:
    """No key, no apply; a dry run can still tell what would come."""
    keys.remove(host)
    with pytest.raises(HostError, match=r"state\.apply wgmesh"):
        apply.apply(host, leaf(relays=()))
    assert "+ wg0 public key: (not made yet)" in apply.apply(host, leaf(relays=()), dry_run=True).lines
    assert host.kernel.devices == {}


def test_a_dry_run_writes_nothing(host: FakeHost) -> None:
    """No device, no file, no memory."""
    apply.apply(host, leaf(), dry_run=True)
    apply.remove(host, "wg0", dry_run=True)
    assert host.kernel.devices == {}
    assert list(host.conf_dir.glob("*.conf")) == []
    assert not (host.state_dir / "wg0").exists()


def test_systemd_starts_the_files_at_boot(host: FakeHost) -> None:
    """Where systemd runs, each interface is enabled once, and disabled when it goes."""
    host.systemd_dir.mkdir()
    host.units_dir.mkdir()
    apply.apply(host, leaf(relays=(1,)))
    assert ("systemctl", "enable", "wg-quick@wg0") in host.kernel.ran
    for name in ("wg0", "wg0-u1"):
        (host.units_dir / f"wg-quick@{name}.service").symlink_to("/lib/systemd/system/wg-quick@.service")
    host.kernel.ran.clear()
    apply.apply(host, leaf(relays=()))
    assert [argv for argv in host.kernel.ran if argv[0] == "systemctl"] == [("systemctl", "disable", "wg-quick@wg0-u1")]


def test_public_keys_of_tests_are_what_they_should_be() -> None:
    """The builders' keys are 32 bytes of base64, as the kernel takes them."""
    assert nodeviews.key(7) == "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
