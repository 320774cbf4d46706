"""A relay whose firewall passes one direction only: n5 is a leaf of n1 and n2, and the rule is one of n1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service
from tests.functional import far
from tests.functional.test_turns import with_keys
from tests.functional.test_watcher_sockets import key_of, state_of, take
from tests.lab.wait import wait_until
from tests.nodeviews import NETWORKS, leaf, peer, relay

NAMES = ("n1", "n2")


def second_relay(leaf_peer):
    """Return the view of n2, with the addresses and ports that n1 knows of it."""
    access, trunk = relay(leaves=(leaf_peer,), trunks=(1,)).interfaces
    to_n1 = replace(trunk, peers=(peer(1, *NETWORKS, endpoint="192.0.2.10:51822"),))
    addresses = ("10.100.0.2", "fd00:64::2")
    return replace(relay(leaves=(leaf_peer,)), node="n2", addresses=addresses, interfaces=(access, to_n1))


@pytest.fixture
def relays(watchers):
    """Yield the machines of n1 and n2. All links are up, and n5 is the test's own machine."""
    with far.machines(n1="192.0.2.10", n2="192.0.2.20") as machines:
        known = {name: machine.call(key_of) for name, machine in machines.items()} | {"n5": key_of()}
        near = peer(5, "10.100.0.5/32", "fd00:64::5/128")
        for name, view in (("n1", relay(leaves=(near,))), ("n2", second_relay(near))):
            machines[name].call(take, with_keys(view, known))
            machines[name].call(service.start_supervisor)
        take(with_keys(leaf(), known))
        service.start_supervisor()
        wait_until(lambda: {state_of(n) for n in NAMES} == {"up"}, 60, "n5 to hear both relays")
        wait_until(lambda: machines["n1"].call(state_of, "n2") == "up", 60, "the trunk to be up")
        yield machines


def named_relays():
    """Return the relays that the leaf's report says lose its probes."""
    report = link_report_file.read_report(Host(), "wg0")
    faults = report.relay_faults if report else ()
    return {name for name in NAMES for fault in faults if fault.startswith(f"packets through {name} ")}


@pytest.mark.parametrize(("entry", "exit_"), [("wg0", "wg0-t2"), ("wg0-t2", "wg0")])
def test_rule_of_one_direction_is_noticed_by_probes(relays, entry, exit_):
    """Whatever program made the rule. Both links stay in use, since a probe does not prove which relay lost it."""
    hook = "type filter hook forward priority 0;"
    rules = f"table ip other {{ chain forward {{ {hook} iifname {entry} oifname {exit_} drop; }}; }}"
    relays["n1"].call(far.run, "nft", rules)
    wait_until(lambda: named_relays() == {"n1"}, 40, "n5 to name n1 alone")
    assert {state_of(n) for n in NAMES} == {"up"}
    relays["n1"].call(far.run, "nft", "delete table ip other")
    wait_until(lambda: not named_relays(), 20, "the fault to be gone")
