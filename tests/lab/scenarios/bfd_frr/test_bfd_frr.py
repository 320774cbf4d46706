"""The watcher and FRR's bfdd agree on the state of a link."""

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

from saltext_wgmesh.core.model.policy import Bfd, Role
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View
from saltext_wgmesh.minion.watcher.instance import WATCHER_COMMAND

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
REST = f"/run/wgmesh/{DEVICE}.admin-down"
SETTINGS = ("detect-multiplier 4", "transmit-interval 200", "receive-interval 200")
"""FRR's settings, unless a step changes them."""
SOON = 10.0
"""Seconds: a loose bound, for busy machines."""
HEARD, SENT = "control-packet-input", "control-packet-output"
"""FRR's counters of control packets."""
# FRR's names of RFC 5880's diagnostics.
EXPIRED = "control detection time expired"
NEIGHBOUR_DOWN = "neighbor signaled session down"
ADMIN_DOWN = "administratively down"

# The second byte of a control packet, after the eight of UDP's header, has the flags poll (0x20) and final (0x10).
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

MAKE_KEY = """
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host
print(keys.ensure(Host()))
"""
APPLY = """
import json, sys
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.system.host import Host
apply.apply(Host(), View.from_dict(json.load(sys.stdin)))
"""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Both ends of the link."""

    lab: Lab
    frr: Bfdd
    log: Path
    """The log of the watcher of this step."""

    @property
    def ours(self) -> Machine:
        return self.lab.underlay["ours"]

    def link(self) -> dict[str, Any]:
        """Return the link as in the watcher's report; empty before there is one."""
        text = self.ours.run("cat", REPORT, check=False)
        return json.loads(text)["links"]["theirs"] if text else {}

    def verdicts(self) -> list[str]:
        """Return the logged states of the link in this step, in order, such as ``up (session up)``."""
        lines = self.log.read_text().splitlines()
        return [line.partition(" is ")[2] for line in lines if " by wg0 is " in line]

    def request_admin_down(self, seconds: float) -> None:
        """Request the link to be admin-down for at most *seconds*, as an apply does."""
        request = {"neighbours": ["theirs"], "until": time.monotonic() + seconds}
        self.ours.run("sh", "-c", f"cat > {REST}.new && mv {REST}.new {REST}", stdin=json.dumps(request))

    def both_up(self) -> bool:
        return self.frr.show()["status"] == "up" and self.link().get("state") == "up"

    def await_up(self) -> None:
        wait_until(self.both_up, SOON, "both ends to be up")

    def await_down(self, ours: str, theirs: str) -> None:
        """Wait until both ends are down. The watcher's reason is *ours*, FRR's diagnostic is *theirs*."""
        # FRR is in state Init while it receives packets of a neighbour that is down.
        wait_until(
            lambda: self.frr.show()["status"] in ("down", "init") and self.frr.show()["diagnostic"] == theirs,
            SOON,
            f"FRR to be down: {theirs}",
        )
        wait_until(lambda: self.link()["state"] == "down", SOON, "our end to be down")
        assert self.verdicts()[-1] == f"down ({ours})"


def view(public_key: str, interval: int = 100) -> View:
    """Return the view of our end: one direct neighbour, which opens the tunnel."""
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
    """Make the WireGuard device at both ends, and return the public key of the other end."""
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
    """Yield both ends, with the session up, and a new watcher without earlier flaps."""
    log = lab.underlay["ours"].folder / "watch.log"
    made = Ends(lab=lab, frr=frr, log=log)
    process = made.ours.spawn(*WATCHER_COMMAND, log=log.name)
    made.await_up()
    yield made
    signal_child(process, signal.SIGTERM)
    process.wait(10)
    made.ours.run("rm", "-f", REPORT)
    log.rename(log.with_name(f"watch-{request.node.name}.log"))


def flagged(frr: Bfdd) -> dict[str, int]:
    """Return the number of packets with each flag that FRR has received and sent, such as ``polls_sent``."""
    shown = frr.machine.json("nft", "-j", "list", "counters", "table", "inet", "wiretap")["nftables"]
    return {c["counter"]["name"]: c["counter"]["packets"] for c in shown if "counter" in c}


def answered(frr: Bfdd, poller: str, before: dict[str, int]) -> bool:
    """Return whether, since *before*, a poll was sent, answered and ended. *poller* is ``sent`` for polls of FRR."""
    other = {"sent": "heard", "heard": "sent"}[poller]
    now = flagged(frr)
    time_of(2, frr, HEARD, SENT)
    ceased = flagged(frr)[f"polls_{poller}"] == now[f"polls_{poller}"]
    return ceased and all(now[c] > before[c] for c in (f"polls_{poller}", f"finals_{other}"))


def time_of(packets: int, frr: Bfdd, *counters: str) -> float:
    """Return the seconds until each of FRR's *counters* has grown by so many packets."""
    begin, before = time.monotonic(), frr.counters()

    def grown() -> bool:
        now = frr.counters()
        return all(now[c] - before[c] >= packets for c in counters)

    wait_until(grown, SOON, f"{packets} packets", every=0.02)
    return time.monotonic() - begin


def test_session_comes_up_at_slower_rate(ends: Ends):
    """The watcher offers 100 ms, FRR 200 ms: both know the other's offer, and send every 200 ms, less the jitter."""
    wait_until(lambda: ends.frr.show()["remote-transmit-interval"] == 100, SOON, "FRR to know our rate")
    shown = ends.frr.show()
    assert (shown["remote-receive-interval"], shown["remote-detect-multiplier"]) == (100, 5)
    assert (shown["diagnostic"], shown["remote-diagnostic"]) == ("ok", "ok")
    wait_until(lambda: ends.link()["interval"] == 200, SOON, "our end to keep to FRR's rate")
    assert 2 * 0.75 * 0.2 < time_of(4, ends.frr, HEARD, SENT) < 4


def test_rate_change_by_frr_is_followed(ends: Ends):
    """A poll of FRR makes our end slower, then as fast as its own offer (100 ms). Neither end goes down."""
    downs = ends.frr.counters()["session-down"]
    for milliseconds, negotiated in ((600, 600), (50, 100)):
        before = flagged(ends.frr)
        ends.frr.configure(f"transmit-interval {milliseconds}", f"receive-interval {milliseconds}")
        wait_until(lambda want=negotiated: ends.link()["interval"] == want, SOON, "our end to follow")
        wait_until(lambda since=before: answered(ends.frr, "sent", since), SOON, "FRR's poll to end")
    assert ends.frr.counters()["session-down"] == downs
    assert ends.verdicts() == ["up (session up)"]
    ends.frr.configure(*SETTINGS)


def test_rate_change_by_watcher_is_followed(ends: Ends, their_key: str):
    """After an apply of another view the watcher polls, and FRR answers. Neither end goes down."""
    downs = ends.frr.counters()["session-down"]
    for interval in (400, 100):
        before = flagged(ends.frr)
        ends.ours.run(sys.executable, "-c", APPLY, stdin=json.dumps(view(their_key, interval).as_dict()))
        wait_until(lambda want=interval: ends.frr.show()["remote-transmit-interval"] == want, SOON, "FRR to know")
        wait_until(lambda want=interval: ends.link()["interval"] == max(200, want), SOON, "our end to follow")
        wait_until(lambda since=before: answered(ends.frr, "heard", since), SOON, "our poll to end")
    assert ends.frr.counters()["session-down"] == downs
    assert ends.verdicts() == ["up (session up)"]


def test_loss_of_all_packets_ends_session(ends: Ends):
    """Each end goes down by its own timer. As the only path the link is used again after a second at most."""
    with faults.cut(ends.lab.underlay, "ours", "theirs"):
        ends.await_down("time_expired", EXPIRED)
        assert ends.link()["hold"] == 1.0
    ends.await_up()
    assert ends.verdicts()[-1].startswith("up (good for 1.")


def test_loss_towards_watcher_ends_session(ends: Ends):
    """The watcher goes down by its timer, and FRR then by its own.

    While FRR is up it drops packets without its discriminator, which a session that went down has forgotten (RFC 5880
    section 6.8.1). Its detection time therefore expires, too.
    """
    with faults.deaf(ends.lab.underlay, "ours", "theirs"):
        ends.await_down("time_expired", EXPIRED)
        wait_until(lambda: ends.frr.show()["remote-diagnostic"] == EXPIRED, SOON, "FRR to hear why")
    ends.await_up()


def test_loss_towards_frr_ends_session(ends: Ends):
    """FRR goes down by its timer, and the watcher because FRR signals it."""
    with faults.unheard(ends.lab.underlay, "ours", "theirs"):
        ends.await_down("neighbour_down", EXPIRED)
    ends.await_up()


def test_session_held_down_by_frr_is_no_failure(ends: Ends):
    """The link is admin-down as long as FRR holds its session down. That is no failure, and adds no hold-down time."""
    ends.frr.configure("shutdown")
    wait_until(lambda: ends.link()["state"] == "admin-down", SOON, "our end to be admin-down")
    assert ends.frr.show()["status"] == "shutdown"
    time_of(2, ends.frr, HEARD)
    assert ends.verdicts() == ["up (session up)", "admin-down (held down on purpose)"]
    ends.frr.configure("no shutdown")
    ends.await_up()
    assert ends.verdicts()[2:] == ["up (session up)"]
    assert ends.link()["hold"] == 0.0


def test_link_is_admin_down_for_apply(ends: Ends):
    """FRR follows the request at once, with its reason, and both ends are up again as soon as the apply is done."""
    ends.request_admin_down(seconds=25)
    wait_until(lambda: ends.link().get("admin_down_acknowledged"), SOON, "FRR's acknowledgement", every=0.05)
    assert ends.link()["state"] == "admin-down"
    shown = ends.frr.show()
    assert (shown["status"], shown["diagnostic"], shown["remote-diagnostic"]) == ("down", NEIGHBOUR_DOWN, ADMIN_DOWN)
    ends.ours.run("rm", REST)
    ends.await_up()
    assert ends.verdicts() == ["up (session up)", "admin-down (held down on purpose)", "up (session up)"]


def test_admin_down_request_expires(ends: Ends):
    """A request that is never withdrawn, as after an apply that was killed, ends at its time."""
    ends.request_admin_down(seconds=3)
    wait_until(lambda: ends.link()["state"] == "admin-down", SOON, "our end to be admin-down", every=0.05)
    ends.await_up()
    ends.ours.run("rm", REST)


def test_session_survives_restart_of_frr(ends: Ends):
    """FRR dies without a signal, and the watcher goes down by its timer. A session with the new FRR comes up."""
    old = ends.frr.show()["id"]
    ends.frr.kill()
    wait_until(lambda: ends.link()["state"] == "down", SOON, "our end to be down")
    assert ends.verdicts()[-1] == "down (time_expired)"
    ends.frr.start()
    ends.frr.configure(*SETTINGS)
    ends.await_up()
    assert ends.frr.show()["id"] != old


def test_end_of_watcher_is_not_signalled(ends: Ends):
    """A watcher that ends sends neither admin-down nor down. FRR goes down by its timer only."""
    pid = json.loads(ends.ours.run("cat", "/run/wgmesh/watch.pid"))["pid"]
    ends.ours.run("sh", "-c", f"kill {pid}")
    wait_until(lambda: ends.frr.show()["status"] == "down", SOON, "FRR to be down")
    shown = ends.frr.show()
    assert (shown["diagnostic"], shown["remote-diagnostic"]) == (EXPIRED, "ok")
    assert ends.link()["state"] == "up"


def test_session_held_down_by_us_stays_down(lab: Lab, frr: Bfdd):
    """FRR goes down when our session is held down, stays down while it receives that, and comes up afterwards."""
    ours = lab.underlay["ours"]
    process = ours.spawn(sys.executable, str(Path(speaker.__file__)), OURS, THEIRS, DEVICE)
    assert process.stdin
    for status, diagnostics in (
        ("up", ("ok", "ok")),
        ("down", (NEIGHBOUR_DOWN, ADMIN_DOWN)),
        ("up", ("ok", "ok")),
    ):
        wait_until(lambda want=status: frr.show()["status"] == want, SOON, f"FRR to be {status}")
        shown = frr.show()
        assert (shown["diagnostic"], shown["remote-diagnostic"]) == diagnostics
        time_of(2, frr, HEARD)
        assert frr.show()["status"] == status
        process.stdin.write("\n")
        process.stdin.flush()
    process.stdin.close()
    signal_child(process, signal.SIGTERM)
    process.wait(10)
