"""The watcher and FRR's bfdd agree on how a link is."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.core.types import Bfd, Interface, Kind, Peer, Role, Route, View
from saltext_wgmesh.minion import watching

from ... import faults
from ...lab import Lab
from ...machine import Machine, signal_child
from ...topology import Topology, host
from ...wait import wait_until
from . import speaker
from .bfdd import Bfdd

TOPOLOGY = Topology(
    machines=(host("ours", "wire", "192.0.2.1/24"), host("theirs", "wire", "192.0.2.2/24")), master="ours", minions=()
)
OURS, THEIRS = "10.100.0.1", "10.100.0.2"
DEVICE = "wg0"
PORT = 51820
REPORT = f"/run/wgmesh/{DEVICE}.json"
REST = f"/run/wgmesh/{DEVICE}.rest"
SETTINGS = ("detect-multiplier 4", "transmit-interval 200", "receive-interval 200")
"""FRR's, unless a step changes them."""
SOON = 10.0
"""Seconds: a loose bound for machines that do much else."""
HEARD, SENT = "control-packet-input", "control-packet-output"
"""FRR's counters of control packets."""
# FRR's words for RFC 5880's diagnostics.
EXPIRED = "control detection time expired"
NEIGHBOUR_DOWN = "neighbor signaled session down"
ADMIN_DOWN = "administratively down"

# The second byte of a control packet, behind the eight of UDP's header, has the flags poll (0x20) and final (0x10).
WIRETAP = f"""
table inet wiretap {{
    counter polls_sent {{}}
    counter finals_sent {{}}
    counter polls_heard {{}}
    counter finals_heard {{}}
    chain heard {{
        type filter hook input priority 0;
        iifname {DEVICE} udp dport 3784 @th,72,8 & 0x20 == 0x20 counter name polls_heard
        iifname {DEVICE} udp dport 3784 @th,72,8 & 0x10 == 0x10 counter name finals_heard
    }}
    chain sent {{
        type filter hook output priority 0;
        oifname {DEVICE} udp dport 3784 @th,72,8 & 0x20 == 0x20 counter name polls_sent
        oifname {DEVICE} udp dport 3784 @th,72,8 & 0x10 == 0x10 counter name finals_sent
    }}
}}
"""

MAKE_KEY = "from saltext_wgmesh.minion import host, keys; print(keys.ensure(host.Host()))"
APPLY = """
import json, sys
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import apply, host
apply.apply(host.Host(), View.from_dict(json.load(sys.stdin)))
"""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Both ends of the link."""

    lab: Lab
    frr: Bfdd
    log: Path
    """Of the watcher of this step."""

    @property
    def ours(self) -> Machine:
        return self.lab.underlay["ours"]

    def link(self) -> dict[str, Any]:
        """The link as our file has it; nothing before there is one."""
        text = self.ours.run("cat", REPORT, check=False)
        return json.loads(text)["links"]["theirs"] if text else {}

    def verdicts(self) -> list[str]:
        """What the watcher of this step said of the link, in order: ``up (heard)``."""
        lines = self.log.read_text().splitlines()
        return [line.partition(" is ")[2] for line in lines if " by wg0 is " in line]

    def rest(self, seconds: float) -> None:
        """An apply asks for the link to rest, for so long at most."""
        request = {"neighbours": ["theirs"], "until": time.time() + seconds}
        self.ours.run("sh", "-c", f"cat > {REST}.new && mv {REST}.new {REST}", stdin=json.dumps(request))

    def both_up(self) -> bool:
        return self.frr.show()["status"] == "up" and self.link().get("state") == "up"

    def await_up(self) -> None:
        wait_until(self.both_up, SOON, "both ends to be up")

    def await_down(self, ours: str, theirs: str) -> None:
        """Both ends are down: ours says *ours*, FRR's diagnostic is *theirs*."""
        # An FRR that hears a neighbour which is down is in state Init until that one has heard it.
        wait_until(
            lambda: self.frr.show()["status"] in ("down", "init") and self.frr.show()["diagnostic"] == theirs,
            SOON,
            f"FRR to be down: {theirs}",
        )
        wait_until(lambda: self.link()["state"] == "down", SOON, "our end to be down")
        assert self.verdicts()[-1] == f"down ({ours})"


def view(public_key: str, interval: int = 100) -> View:
    """Ours: one direct neighbour, which opens the tunnel."""
    prefix = (f"{THEIRS}/32",)
    peer = Peer(node="theirs", address=THEIRS, public_key=public_key, endpoint=None, keepalive=0, allowed_ips=prefix)
    return View(
        mesh=DEVICE,
        node="ours",
        role=Role.LEAF,
        addresses=(OURS,),
        networks=("10.100.0.0/16",),
        forward=False,
        mtu=1420,
        bfd=Bfd(interval=interval, multiplier=5),
        interfaces=(Interface(name=DEVICE, kind=Kind.ACCESS, listen_port=PORT, peers=(peer,)),),
        routes=(Route(prefixes=prefix, via=("theirs",)),),
    )


def tunnel(ours: Machine, theirs: Machine) -> str:
    """Both have the device; the public key of theirs."""
    our_key = ours.run(sys.executable, "-c", MAKE_KEY).strip()
    private = theirs.run("wg", "genkey")
    their_key = theirs.run("wg", "pubkey", stdin=private).strip()
    ours.run(sys.executable, "-c", APPLY, stdin=json.dumps(view(their_key).as_dict()))
    theirs.run("sh", "-c", f"ip link add {DEVICE} type wireguard 2>/dev/null || wireguard-go {DEVICE}")
    theirs.run("wg", "set", DEVICE, "private-key", "/dev/stdin", stdin=private)
    where = TOPOLOGY.machine("ours").address
    there = ("endpoint", f"{where}:{PORT}", "persistent-keepalive", "1", "allowed-ips", f"{OURS}/32")
    theirs.run("wg", "set", DEVICE, "peer", our_key, *there)
    theirs.run("ip", "address", "add", f"{THEIRS}/32", "dev", DEVICE)
    theirs.run("ip", "link", "set", DEVICE, "up")
    theirs.run("ip", "route", "add", f"{OURS}/32", "dev", DEVICE)
    return their_key


@pytest.fixture(scope="module")
def their_key(lab: Lab) -> str:
    return tunnel(lab.underlay["ours"], lab.underlay["theirs"])


@pytest.fixture(scope="module")
def frr(lab: Lab, their_key: str) -> Bfdd:
    if not shutil.which("vtysh"):
        pytest.fail("FRR is missing: apt-get install --no-install-recommends frr", pytrace=False)
    frr = Bfdd(lab.underlay["theirs"], local=THEIRS, peer=OURS, device=DEVICE)
    frr.machine.run("nft", "-f", "-", stdin=WIRETAP)
    frr.start()
    frr.configure(*SETTINGS)
    return frr


@pytest.fixture
def ends(request: pytest.FixtureRequest, lab: Lab, frr: Bfdd) -> Iterator[Ends]:
    """Both ends are up, and ours remembers no earlier flap."""
    log = lab.underlay["ours"].folder / "watch.log"
    made = Ends(lab=lab, frr=frr, log=log)
    process = made.ours.spawn(*watching.COMMAND, log=log.name)
    made.await_up()
    yield made
    signal_child(process, signal.SIGTERM)
    process.wait(10)
    made.ours.run("rm", "-f", REPORT)
    log.rename(log.with_name(f"watch-{request.node.name}.log"))


def flagged(frr: Bfdd) -> dict[str, int]:
    """How many packets with which flag FRR has heard and sent, as ``polls_sent``."""
    told = frr.machine.json("nft", "-j", "list", "counters", "table", "inet", "wiretap")["nftables"]
    return {c["counter"]["name"]: c["counter"]["packets"] for c in told if "counter" in c}


def answered(frr: Bfdd, poller: str, before: dict[str, int]) -> bool:
    """Whether, since *before*, an end polled, the other answered, and it ceased. *poller*: ``sent`` for FRR's polls."""
    other = {"sent": "heard", "heard": "sent"}[poller]
    now = flagged(frr)
    time_of(2, frr, HEARD, SENT)
    ceased = flagged(frr)[f"polls_{poller}"] == now[f"polls_{poller}"]
    return ceased and all(now[c] > before[c] for c in (f"polls_{poller}", f"finals_{other}"))


def time_of(packets: int, frr: Bfdd, *counters: str) -> float:
    """Seconds until each of FRR's *counters* has grown by so many packets."""
    begin, before = time.monotonic(), frr.counters()

    def grown() -> bool:
        now = frr.counters()
        return all(now[c] - before[c] >= packets for c in counters)

    wait_until(grown, SOON, f"{packets} packets", every=0.02)
    return time.monotonic() - begin


def test_it_comes_up_at_the_slower_rate(ends: Ends):
    """We wish 100 ms, FRR 200: each knows what the other wishes, and both send each 200 ms, less the jitter."""
    wait_until(lambda: ends.frr.show()["remote-transmit-interval"] == 100, SOON, "FRR to know our rate")
    told = ends.frr.show()
    assert (told["remote-receive-interval"], told["remote-detect-multiplier"]) == (100, 5)
    assert (told["diagnostic"], told["remote-diagnostic"]) == ("ok", "ok")
    wait_until(lambda: ends.link()["interval"] == 200, SOON, "our end to keep to FRR's rate")
    assert 2 * 0.75 * 0.2 < time_of(4, ends.frr, HEARD, SENT) < 4


def test_frr_changes_the_rate_while_it_is_up(ends: Ends):
    """By a poll: our end becomes slower, then as fast as it wishes itself (100 ms), and neither end goes down."""
    downs = ends.frr.counters()["session-down"]
    for milliseconds, negotiated in ((600, 600), (50, 100)):
        before = flagged(ends.frr)
        ends.frr.configure(f"transmit-interval {milliseconds}", f"receive-interval {milliseconds}")
        wait_until(lambda want=negotiated: ends.link()["interval"] == want, SOON, "our end to follow")
        wait_until(lambda since=before: answered(ends.frr, "sent", since), SOON, "FRR's poll to end")
    assert ends.frr.counters()["session-down"] == downs
    assert ends.verdicts() == ["up (heard)"]
    ends.frr.configure(*SETTINGS)


def test_ours_changes_the_rate_while_it_is_up(ends: Ends, their_key: str):
    """By a poll of ours that FRR answers, after an apply of another view; neither end goes down."""
    downs = ends.frr.counters()["session-down"]
    for interval in (400, 100):
        before = flagged(ends.frr)
        ends.ours.run(sys.executable, "-c", APPLY, stdin=json.dumps(view(their_key, interval).as_dict()))
        wait_until(lambda want=interval: ends.frr.show()["remote-transmit-interval"] == want, SOON, "FRR to know")
        wait_until(lambda want=interval: ends.link()["interval"] == max(200, want), SOON, "our end to follow")
        wait_until(lambda since=before: answered(ends.frr, "heard", since), SOON, "our poll to end")
    assert ends.frr.counters()["session-down"] == downs
    assert ends.verdicts() == ["up (heard)"]


def test_both_go_down_when_nothing_arrives(ends: Ends):
    """Each by its own time. Ours would be held for a second now, but not while it is the only way to anywhere."""
    with faults.cut(ends.lab.underlay, "ours", "theirs"):
        ends.await_down("time_expired", EXPIRED)
        assert ends.link()["hold"] == 1.0
    ends.await_up()
    assert ends.verdicts()[-1] == "up (heard)"


def test_what_ours_does_not_hear_brings_both_down(ends: Ends):
    """Ours by its time. FRR heeds no packet without its discriminator while it is up, and ours has forgotten that
    (RFC 5880 section 6.8.1): so FRR's time is up too, since it takes nothing else for a sign of life."""
    with faults.deaf(ends.lab.underlay, "ours", "theirs"):
        ends.await_down("time_expired", EXPIRED)
        wait_until(lambda: ends.frr.show()["remote-diagnostic"] == EXPIRED, SOON, "FRR to hear why")
    ends.await_up()


def test_what_frr_does_not_hear_brings_both_down(ends: Ends):
    """FRR by its time, ours because FRR says so."""
    with faults.unheard(ends.lab.underlay, "ours", "theirs"):
        ends.await_down("neighbour_down", EXPIRED)
    ends.await_up()


def test_frr_holds_the_session_down(ends: Ends):
    """Ours rests by the neighbour's word, once, for as long as that lasts: it is no failure, and leaves no trace."""
    ends.frr.configure("shutdown")
    wait_until(lambda: ends.link()["state"] == "admin-down", SOON, "our end to rest")
    assert ends.frr.show()["status"] == "shutdown"
    time_of(2, ends.frr, HEARD)
    assert ends.verdicts() == ["up (heard)", "admin-down (it rests)"]
    ends.frr.configure("no shutdown")
    ends.await_up()
    assert ends.verdicts()[2:] == ["up (heard)"]
    assert ends.link()["hold"] == 0.0


def test_ours_rests_for_an_apply(ends: Ends):
    """FRR heeds it at once, knows why, and both are up again as soon as the apply is done."""
    ends.rest(seconds=25)
    wait_until(lambda: ends.link().get("heeded"), SOON, "FRR to have heard it", every=0.05)
    assert ends.link()["state"] == "admin-down"
    told = ends.frr.show()
    assert (told["status"], told["diagnostic"], told["remote-diagnostic"]) == ("down", NEIGHBOUR_DOWN, ADMIN_DOWN)
    ends.ours.run("rm", REST)
    ends.await_up()
    assert ends.verdicts() == ["up (heard)", "admin-down (it rests)", "up (heard)"]


def test_a_rest_that_nobody_ends_lapses(ends: Ends):
    """As when an apply is killed."""
    ends.rest(seconds=3)
    wait_until(lambda: ends.link()["state"] == "admin-down", SOON, "our end to rest", every=0.05)
    ends.await_up()
    ends.ours.run("rm", REST)


def test_frr_dies_and_another_begins(ends: Ends):
    """Nothing is said on dying: ours notices by time. The new one's session is another, and comes up."""
    old = ends.frr.show()["id"]
    ends.frr.kill()
    wait_until(lambda: ends.link()["state"] == "down", SOON, "our end to be down")
    assert ends.verdicts()[-1] == "down (time_expired)"
    ends.frr.start()
    ends.frr.configure(*SETTINGS)
    ends.await_up()
    assert ends.frr.show()["id"] != old


def test_an_end_of_the_watcher_says_nothing_to_frr(ends: Ends):
    """Neither admin-down nor down: a watcher that is upgraded is missed by time alone, if at all."""
    told = json.loads(ends.ours.run("cat", "/run/wgmesh/watch.pid"))
    ends.ours.run("sh", "-c", f"kill {told['pid']}")
    wait_until(lambda: ends.frr.show()["status"] == "down", SOON, "FRR to be down")
    told = ends.frr.show()
    assert (told["diagnostic"], told["remote-diagnostic"]) == (EXPIRED, "ok")
    assert ends.link()["state"] == "up"


def test_our_session_is_held_down(lab: Lab, frr: Bfdd):
    """FRR is down by our word and stays so while it hears it; it comes up when we let it."""
    ours = lab.underlay["ours"]
    process = ours.spawn(sys.executable, str(Path(speaker.__file__)), OURS, THEIRS, DEVICE)
    assert process.stdin
    for status, diagnostics in (
        ("up", ("ok", "ok")),
        ("down", (NEIGHBOUR_DOWN, ADMIN_DOWN)),
        ("up", ("ok", "ok")),
    ):
        wait_until(lambda want=status: frr.show()["status"] == want, SOON, f"FRR to be {status}")
        told = frr.show()
        assert (told["diagnostic"], told["remote-diagnostic"]) == diagnostics
        time_of(2, frr, HEARD)
        assert frr.show()["status"] == status
        process.stdin.write("\n")
        process.stdin.flush()
    process.stdin.close()
    signal_child(process, signal.SIGTERM)
    process.wait(10)
