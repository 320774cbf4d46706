"""WireGuard's texts: what is read, what is refused, and what is sent."""

from __future__ import annotations

import hashlib

import pytest

from saltext_wgmesh.core import wgtext
from saltext_wgmesh.core.device import PeerConfig, PeerStats
from saltext_wgmesh.core.errors import HostError
from tests.nodeviews import key

PRIVATE = "cHJpdmF0ZS1wcml2YXRlLXByaXZhdGUtcHJpdmF0ZS0="
PRESHARED = "cHJlc2hhcmVkLXByZXNoYXJlZC1wcmVzaGFyZWQtLS0="
IDENTIFIER = hashlib.sha256(PRESHARED.encode()).hexdigest()[:16]
FOLDER = "/var/lib/wgmesh/wg0/preshared"
DUMP = (
    f"wg0\t{PRIVATE}\t{key(1)}\t51820\toff\n"
    f"wg0\t{key(9)}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    f"wg0\t{key(7)}\t{PRESHARED}\t[2001:db8::7]:51820\tfd00:64::7/128,10.100.0.7/32\t1700000000\t148\t92\t25\n"
    "wg0-u1\t(none)\t(none)\t0\toff\n"
)


def config(**given: object) -> PeerConfig:
    """n7 with one allowed-ip, but for what is given."""
    return PeerConfig(
        **{"public_key": key(7), "endpoint": None, "keepalive": 0, "allowed_ips": ("10.100.0.7/32",), **given}
    )


def test_a_dump_becomes_devices() -> None:
    """Configuration and counters come apart, peers and prefixes in order, and "(none)" is none."""
    devices = wgtext.parse_dump(DUMP)
    assert list(devices) == ["wg0", "wg0-u1"]
    wg0 = devices["wg0"]
    assert (wg0.public_key, wg0.listen_port) == (key(1), 51820)
    assert wg0.peers == (
        PeerConfig(
            public_key=key(7),
            endpoint="[2001:db8::7]:51820",
            keepalive=25,
            allowed_ips=("10.100.0.7/32", "fd00:64::7/128"),
            preshared=IDENTIFIER,
        ),
        PeerConfig(public_key=key(9), endpoint=None, keepalive=0, allowed_ips=()),
    )
    assert wg0.stats[0] == PeerStats(
        device="wg0",
        public_key=key(7),
        endpoint="[2001:db8::7]:51820",
        handshake_at=1700000000,
        received=148,
        sent=92,
    )
    assert wg0.stats[1].handshake_at is None
    assert (devices["wg0-u1"].public_key, devices["wg0-u1"].peers) == ("", ())


def test_secrets_of_a_dump_are_in_no_value() -> None:
    """Neither the private key nor a preshared one is in anything that the parser makes."""
    assert PRIVATE in DUMP
    assert PRESHARED in DUMP
    made = repr(wgtext.parse_dump(DUMP))
    assert PRIVATE not in made
    assert PRESHARED not in made


@pytest.mark.parametrize(
    "line",
    [
        PRIVATE,
        f"wg0\t{PRIVATE}\t{key(1)}\tport\toff",
        f"wg0\t{key(7)}\t{PRESHARED}\t(none)\t(none)\tnever\t0\t0\toff",
        f"wg0\t{key(7)}\t{PRESHARED}\t(none)\t(none)\t0\t0\t0\toff\tmore",
    ],
)
def test_an_unreadable_line_is_named_but_not_quoted(line: str) -> None:
    """The error tells the line's number; the line may hold a key, so nothing of it, and no cause, is shown."""
    with pytest.raises(HostError, match="line 2 of 'wg show all dump'") as caught:
        wgtext.parse_dump(f"wg0\t(none)\t(none)\t0\toff\n{line}\n")
    assert PRIVATE not in str(caught.value)
    assert PRESHARED not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_devices() -> None:
    """A node without WireGuard devices has an empty dump."""
    assert wgtext.parse_dump("") == {}


def test_a_new_peer_is_given_whole() -> None:
    """What has its default is not said, but allowed-ips always are."""
    assert wgtext.add_peer(config(endpoint="192.0.2.7:51820", keepalive=25), FOLDER) == (
        *("peer", key(7), "endpoint", "192.0.2.7:51820", "persistent-keepalive", "25"),
        *("allowed-ips", "10.100.0.7/32"),
    )
    assert wgtext.add_peer(config(allowed_ips=()), FOLDER) == ("peer", key(7), "allowed-ips", "")


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (config(), ()),
        (config(keepalive=25), ("persistent-keepalive", "25")),
        (config(endpoint="192.0.2.7:1"), ("endpoint", "192.0.2.7:1")),
        (config(allowed_ips=("a/32", "b/32")), ("allowed-ips", "a/32,b/32")),
        (config(preshared=IDENTIFIER), ("preshared-key", f"{FOLDER}/{IDENTIFIER}")),
    ],
)
def test_an_altered_peer_is_told_only_what_differs(new: PeerConfig, words: tuple[str, ...]) -> None:
    """A list of allowed-ips that stays is not sent again: that would empty it for a moment."""
    told = wgtext.alter_peer(config(), new, FOLDER, allowed_ips=True)
    assert told == (("peer", key(7), *words) if words else ())


def test_a_preshared_key_is_the_path_of_a_file() -> None:
    """Never the key itself, which would stand in the list of processes; an empty file takes it away."""
    assert wgtext.add_peer(config(preshared=IDENTIFIER), FOLDER)[2:4] == ("preshared-key", f"{FOLDER}/{IDENTIFIER}")
    told = wgtext.alter_peer(config(preshared=IDENTIFIER), config(), FOLDER, allowed_ips=True)
    assert told == ("peer", key(7), "preshared-key", "/dev/null")


def test_no_preshared_key_may_be_spelled_in_zeros() -> None:
    """``wg`` prints "(none)" for 32 zero bytes, and takes these as none."""
    zeros = DUMP.replace(PRESHARED, "A" * 43 + "=")
    assert wgtext.parse_dump(zeros)["wg0"].peers[0].preshared is None


def test_keepalive_is_switched_off_by_zero() -> None:
    """From 25 to off is a change like any other."""
    assert wgtext.alter_peer(config(keepalive=25), config(), FOLDER, allowed_ips=True)[2:] == (
        "persistent-keepalive",
        "0",
    )


def test_an_endpoint_that_stays_is_not_sent_again() -> None:
    """A peer that roams meanwhile would be thrown back."""
    old = config(endpoint="192.0.2.7:1")
    new = config(endpoint="192.0.2.7:1", keepalive=25)
    assert wgtext.alter_peer(old, new, FOLDER, allowed_ips=True) == ("peer", key(7), "persistent-keepalive", "25")


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [("relay.example.com:51820", True), ("relay:1", True), ("192.0.2.7:51820", False), ("[2001:db8::7]:51820", False)],
)
def test_names_are_told_from_addresses(endpoint: str, named: bool) -> None:
    """Only a name must be looked up."""
    assert wgtext.is_name(endpoint) is named


def test_many_peers_are_sent_in_chunks() -> None:
    """An argument list is bounded; empty parts make no command."""
    parts = [("peer", key(n), "remove") for n in range(5)]
    sent = list(wgtext.commands("wg0", [(), *parts], chunk=2))
    assert [argv[:3] for argv in sent] == [("wg", "set", "wg0")] * 3
    assert [len(argv) for argv in sent] == [9, 9, 6]
    assert list(wgtext.commands("wg0", [()])) == []
