"""The texts of ``wg``: dumps that are parsed, dumps that are refused, and arguments that are made."""

from __future__ import annotations

import hashlib

import pytest

from saltext_wgmesh.core.device import wg_cli
from saltext_wgmesh.core.device.state import PeerConfig, PeerStats
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


def config(**fields: object) -> PeerConfig:
    """Return n7 as a peer with one allowed-ip, changed by *fields*."""
    return PeerConfig(
        **{"public_key": key(7), "endpoint": None, "keepalive": 0, "allowed_ips": ("10.100.0.7/32",), **fields}
    )


def test_parse_dump_returns_devices() -> None:
    """Configuration and counters are separate, peers and prefixes sorted, and "(none)" is None."""
    devices = wg_cli.parse_dump(DUMP)
    assert list(devices) == ["wg0", "wg0-u1"]
    wg0 = devices["wg0"]
    assert (wg0.public_key, wg0.listen_port) == (key(1), 51820)
    assert wg0.peers == (
        PeerConfig(
            public_key=key(7),
            endpoint="[2001:db8::7]:51820",
            keepalive=25,
            allowed_ips=("10.100.0.7/32", "fd00:64::7/128"),
            psk_id=IDENTIFIER,
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


def test_parse_dump_drops_secrets() -> None:
    """Neither the private key nor a preshared key is in the result of the parser."""
    assert PRIVATE in DUMP
    assert PRESHARED in DUMP
    made = repr(wg_cli.parse_dump(DUMP))
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
def test_parse_dump_malformed_line_is_not_quoted(line: str) -> None:
    """The error has the line's number. The line may hold a key, so neither its text nor a cause is shown."""
    with pytest.raises(HostError, match="line 2 of 'wg show all dump'") as caught:
        wg_cli.parse_dump(f"wg0\t(none)\t(none)\t0\toff\n{line}\n")
    assert PRIVATE not in str(caught.value)
    assert PRESHARED not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_parse_dump_empty_has_no_devices() -> None:
    """A node without WireGuard devices has an empty dump."""
    assert wg_cli.parse_dump("") == {}


def test_add_peer_omits_defaults() -> None:
    """Fields with their default value are left out, but allowed-ips are always set."""
    assert wg_cli.add_peer(config(endpoint="192.0.2.7:51820", keepalive=25), FOLDER) == (
        *("peer", key(7), "endpoint", "192.0.2.7:51820", "persistent-keepalive", "25"),
        *("allowed-ips", "10.100.0.7/32"),
    )
    assert wg_cli.add_peer(config(allowed_ips=()), FOLDER) == ("peer", key(7), "allowed-ips", "")


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (config(), ()),
        (config(keepalive=25), ("persistent-keepalive", "25")),
        (config(endpoint="192.0.2.7:1"), ("endpoint", "192.0.2.7:1")),
        (config(allowed_ips=("a/32", "b/32")), ("allowed-ips", "a/32,b/32")),
        (config(psk_id=IDENTIFIER), ("preshared-key", f"{FOLDER}/{IDENTIFIER}")),
    ],
)
def test_change_peer_sets_only_differences(new: PeerConfig, words: tuple[str, ...]) -> None:
    """An unchanged list of allowed-ips is not sent again: that would empty it for a moment."""
    arguments = wg_cli.change_peer(config(), new, FOLDER, allowed_ips=True)
    assert arguments == (("peer", key(7), *words) if words else ())


def test_preshared_key_argument_is_a_path() -> None:
    """The key itself would be visible in the list of processes; an empty file removes it."""
    assert wg_cli.add_peer(config(psk_id=IDENTIFIER), FOLDER)[2:4] == ("preshared-key", f"{FOLDER}/{IDENTIFIER}")
    arguments = wg_cli.change_peer(config(psk_id=IDENTIFIER), config(), FOLDER, allowed_ips=True)
    assert arguments == ("peer", key(7), "preshared-key", "/dev/null")


def test_parse_dump_zero_preshared_key_is_none() -> None:
    """32 zero bytes mean no preshared key; ``wg`` itself prints "(none)" for them."""
    zeros = DUMP.replace(PRESHARED, "A" * 43 + "=")
    assert wg_cli.parse_dump(zeros)["wg0"].peers[0].psk_id is None


def test_change_peer_keepalive_off_sets_zero() -> None:
    """A keepalive is switched off by the value zero."""
    assert wg_cli.change_peer(config(keepalive=25), config(), FOLDER, allowed_ips=True)[2:] == (
        "persistent-keepalive",
        "0",
    )


def test_change_peer_same_endpoint_is_not_sent() -> None:
    """Sending it again would set back a peer that roams at that moment."""
    old = config(endpoint="192.0.2.7:1")
    new = config(endpoint="192.0.2.7:1", keepalive=25)
    assert wg_cli.change_peer(old, new, FOLDER, allowed_ips=True) == ("peer", key(7), "persistent-keepalive", "25")


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [("relay.example.com:51820", True), ("relay:1", True), ("192.0.2.7:51820", False), ("[2001:db8::7]:51820", False)],
)
def test_is_host_name_false_for_addresses(endpoint: str, named: bool) -> None:
    """Only a name must be resolved."""
    assert wg_cli.is_host_name(endpoint) is named


def test_wg_commands_are_chunked() -> None:
    """An argument list is bounded; empty parts make no command."""
    parts = [("peer", key(n), "remove") for n in range(5)]
    sent = list(wg_cli.wg_commands("wg0", [(), *parts], chunk=2))
    assert [argv[:3] for argv in sent] == [("wg", "set", "wg0")] * 3
    assert [len(argv) for argv in sent] == [9, 9, 6]
    assert list(wg_cli.wg_commands("wg0", [()])) == []
