"""The kernel's routes follow the report: after a change of state, after other programs, after another view."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.watcher.route_updater import RouteUpdater
from saltext_wgmesh.minion.watcher.slices import AT_ONCE, finish
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel, MisprintingHost, with_ipv6

MESH_NETWORK, MESH_NETWORK_6 = nodeviews.NETWORKS
DEVICES = frozenset({"wg0", "wg0-u1", "wg0-u2"})


@pytest.fixture
def kernel():
    return Kernel(sysctls=with_ipv6())


@pytest.fixture
def host(tmp_path, kernel):
    """A leaf of the relays n1 and n2 that has applied its view; both networks go by n1."""
    made = FakeHost.below(tmp_path, kernel)
    keys.ensure(made)
    apply.apply(made, nodeviews.leaf())
    return made


@pytest.fixture
def updater(host):
    made = RouteUpdater(host, nodeviews.leaf())
    made.reconcile_routes(report(), DEVICES)
    return made


def report(**states: LinkState) -> LinkReport:
    """Both links are up, but for *states*."""
    named = {"n1": LinkState.UP, "n2": LinkState.UP} | states
    links = {
        n: LinkStatus(neighbour=n, interface=f"wg0-u{n[1]}", state=state, since=7.0)
        for n, state in sorted(named.items())
    }
    return LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links))


def devices(kernel):
    """Network of the mesh → the device by which it goes; None: no route."""
    return {network: kernel.routes.get(("main", network), {}).get("dev") for network in nodeviews.NETWORKS}


def batches(kernel):
    """How often routes were changed."""
    return sum("-batch" in command for command in kernel.ran)


def test_update_moves_routes_off_a_dead_link(kernel, updater):
    """By one command for each address family, without reading the kernel's."""
    assert devices(kernel) == dict.fromkeys(nodeviews.NETWORKS, "wg0-u1")
    kernel.ran.clear()
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert devices(kernel) == dict.fromkeys(nodeviews.NETWORKS, "wg0-u2")
    assert [command[:2] for command in kernel.ran] == [("ip", "-4"), ("ip", "-6")]


def test_update_without_change_runs_nothing(kernel, updater):
    """Nor does a second update with the same report."""
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    kernel.ran.clear()
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert kernel.ran == []


def test_reconcile_restores_a_deleted_route(kernel, updater):
    """An update alone does not see that another program has deleted it."""
    del kernel.routes["main", MESH_NETWORK]
    updater.update_routes(report(), DEVICES)
    assert devices(kernel)[MESH_NETWORK] is None
    updater.reconcile_routes(report(), DEVICES)
    assert devices(kernel)[MESH_NETWORK] == "wg0-u1"


def test_reconcile_leaves_a_foreign_route_in_place(kernel, updater, caplog):
    """The kernel's route of the node's own LAN is not replaced; when it goes away, the mesh's is set."""
    lan = {"dev": "eth0", "proto": "kernel"}
    kernel.routes["main", MESH_NETWORK] = lan
    for _ in range(3):
        updater.reconcile_routes(report(n1=LinkState.DOWN), DEVICES)
        updater.update_routes(report(), DEVICES)
    assert kernel.routes["main", MESH_NETWORK] is lan
    assert devices(kernel)[MESH_NETWORK_6] == "wg0-u1"
    assert caplog.text.count("has a route by eth0") == 1
    del kernel.routes["main", MESH_NETWORK]
    updater.reconcile_routes(report(), DEVICES)
    assert devices(kernel)[MESH_NETWORK] == "wg0-u1"


def test_no_update_comes_before_foreign_routes_are_known(kernel, host):
    """A link that changes while a new view's routes are read does not replace the route of the node's own LAN."""
    lan = {"dev": "eth0", "proto": "kernel"}
    kernel.routes["main", MESH_NETWORK] = lan
    updater = RouteUpdater(host, nodeviews.leaf())
    reconciliation = updater.reconcile_steps(report(), DEVICES)
    for _ in reconciliation:
        updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert kernel.routes["main", MESH_NETWORK] is lan
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert devices(kernel) == {MESH_NETWORK: "eth0", MESH_NETWORK_6: "wg0-u2"}


def test_reconcile_leaves_right_routes_alone(kernel, updater):
    """A new watcher interrupts nothing."""
    before = batches(kernel)
    updater.reconcile_routes(report(), DEVICES)
    assert batches(kernel) == before


def test_route_over_missing_device_waits_for_it(kernel, updater):
    """It is set as soon as the device is there."""
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES - {"wg0-u2"})
    assert devices(kernel)[MESH_NETWORK] == "wg0-u1"
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert devices(kernel)[MESH_NETWORK] == "wg0-u2"


def test_route_the_kernel_refuses_is_tried_again(kernel, updater, caplog):
    """It is logged, and the next update sets it."""
    kernel.devices["wg0-u2"].up = False
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert "routes cannot be set" in caplog.text
    kernel.devices["wg0-u2"].up = True
    updater.update_routes(report(n1=LinkState.DOWN), DEVICES)
    assert devices(kernel) == dict.fromkeys(nodeviews.NETWORKS, "wg0-u2")


def test_refused_route_keeps_no_other_from_being_set(kernel, host, caplog):
    """The neighbours have a route each. One is refused and tried again; the others follow the links at once."""
    peers = tuple(nodeviews.peer(n, endpoint=f"192.0.2.{n}:51820") for n in (7, 8, 9))
    view = nodeviews.leaf(direct=peers)
    apply.apply(host, view)
    updater = RouteUpdater(host, view)
    up = report(n7=LinkState.UP, n8=LinkState.UP, n9=LinkState.UP)
    updater.reconcile_routes(up, DEVICES)
    for n in (7, 8, 9):
        del kernel.routes["main", f"10.100.0.{n}/32"]
    kernel.refused_prefixes = {"10.100.0.7/32"}
    updater.reconcile_routes(up, DEVICES)
    assert [("main", f"10.100.0.{n}/32") in kernel.routes for n in (7, 8, 9)] == [False, True, True]
    assert "route replace 10.100.0.7/32" in caplog.text
    kernel.refused_prefixes = set()
    updater.update_routes(up, DEVICES)
    assert ("main", "10.100.0.7/32") in kernel.routes


@given(
    st.sampled_from(["routes", "rules"]), st.binary(max_size=40) | st.sampled_from([b"[", b"{}", b"[7]", b"[" * 9999])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_no_output_of_ip_ends_updater(host, output, listed):
    """The routes that it knows of follow the links all the same."""
    words = {"routes": "route", "rules": "rule"}
    broken = MisprintingHost.below(host.key_file.parents[1], host.kernel)
    broken.printed[words[output]] = listed.decode(errors="replace")
    updater = RouteUpdater(broken, nodeviews.leaf())
    updater.reconcile_routes(report(), DEVICES)
    updater.delete_stale_routes(report(n1=LinkState.DOWN), DEVICES)
    broken.printed.clear()
    updater.delete_stale_routes(report(n1=LinkState.DOWN), DEVICES)
    assert devices(host.kernel) == dict.fromkeys(nodeviews.NETWORKS, "wg0-u2")


def test_node_without_ipv6_gets_no_ipv6_route(kernel, updater):
    """The kernel would refuse it."""
    kernel.sysctls["net/ipv6/conf/all/disable_ipv6"] = "1"
    desired = {entry.prefix for entry in updater.desired_entries(report())}
    assert {"ipv4": MESH_NETWORK in desired, "ipv6": MESH_NETWORK_6 in desired} == {"ipv4": True, "ipv6": False}


def test_stale_route_of_an_earlier_view_is_deleted(kernel, host):
    """Over this view's devices alone; the routes of the view stay."""
    kernel.routes["main", "10.9.0.0/16"] = dict(kernel.routes["main", MESH_NETWORK])
    kernel.devices["wg9"] = type(kernel.devices["wg0"])(up=True)
    kernel.routes["main", "10.8.0.0/16"] = {**kernel.routes["main", MESH_NETWORK], "dev": "wg9"}
    RouteUpdater(host, nodeviews.leaf()).delete_stale_routes(report(), DEVICES)
    assert ("main", "10.9.0.0/16") not in kernel.routes
    assert ("main", "10.8.0.0/16") in kernel.routes
    assert devices(kernel) == dict.fromkeys(nodeviews.NETWORKS, "wg0-u1")


# --- rules ---------------------------------------------------------------------------------------------

TABLE = str(constants.trunk_table("wg0"))
RELAY_DEVICES = frozenset({"wg0", "wg0-t2", "wg0-t3"})


@pytest.fixture
def relay_updater(tmp_path, kernel):
    """That of a relay with two trunks, after an apply."""
    host = FakeHost.below(tmp_path, kernel)
    keys.ensure(host)
    apply.apply(host, nodeviews.relay(trunks=(2, 3)))
    return RouteUpdater(host, nodeviews.relay(trunks=(2, 3)))


@given(st.sets(st.tuples(st.sampled_from([4, 6]), st.sampled_from(["wg0-t2", "wg0-t3"]))))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reconcile_restores_any_deleted_rules(kernel, relay_updater, deleted):
    """Whichever of them are gone; those of other programs stay as they are."""
    foreign = (4, "eth0", "99")
    before = set(kernel.rules)
    kernel.rules.add(foreign)
    kernel.rules -= {(family, device, TABLE) for family, device in deleted}
    assert finish(relay_updater.reconcile_rules_steps(RELAY_DEVICES)) is bool(deleted)
    assert kernel.rules == before | {foreign}


def test_rule_of_missing_device_waits_for_it(kernel, relay_updater):
    """A rule for a device that an apply has just removed is not restored."""
    kernel.rules.clear()
    finish(relay_updater.reconcile_rules_steps(RELAY_DEVICES - {"wg0-t3"}))
    assert kernel.rules == {(4, "wg0-t2", TABLE), (6, "wg0-t2", TABLE)}


def test_stale_rule_of_earlier_view_is_deleted(kernel, relay_updater, tmp_path):
    """After another view alone: before that, an apply may have added it."""
    updater = RouteUpdater(relay_updater._host, nodeviews.relay(trunks=(2,)))
    updater.reconcile_routes(report(n2=LinkState.UP), RELAY_DEVICES)
    assert {device for _, device, _ in kernel.rules} == {"wg0-t2", "wg0-t3"}
    updater.delete_stale_routes(report(n2=LinkState.UP), RELAY_DEVICES)
    assert {device for _, device, _ in kernel.rules} == {"wg0-t2"}


def test_rule_inverted_by_another_program_stays(kernel, tmp_path, caplog):
    """The first apply of the node goes through without ours, and so does the watcher. The log names the rule once."""
    kernel.inverted_rules = {(4, "wg0-t2", TABLE)}
    host, view = FakeHost.below(tmp_path, kernel), nodeviews.relay(trunks=(2, 3))
    keys.ensure(host)
    apply.apply(host, view)
    assert not apply.apply(host, view).changed
    assert kernel.rules == {(6, "wg0-t2", TABLE), (4, "wg0-t3", TABLE), (6, "wg0-t3", TABLE)}
    assert "takes no rule for packets from wg0-t2 (IPv4)" in caplog.text
    caplog.clear()
    updater = RouteUpdater(host, view)
    for _ in range(3):
        assert not finish(updater.reconcile_rules_steps(RELAY_DEVICES))
    assert caplog.text.count("takes no rule") == 1
    kernel.inverted_rules.clear()
    assert finish(updater.reconcile_rules_steps(RELAY_DEVICES))
    assert (4, "wg0-t2", TABLE) in kernel.rules


def test_foreign_routes_are_read_in_slices(kernel, host, monkeypatch):
    """However many routes of other tables there are: the loop looks for packets in between."""
    del kernel.routes["main", MESH_NETWORK]
    broken = MisprintingHost.below(host.key_file.parents[1], kernel)
    foreign = {"dst": "10.1.0.0/16", "dev": "eth0", "table": "7"}
    broken.printed["all"] = json.dumps([foreign] * 100 * AT_ONCE)
    updater = RouteUpdater(broken, nodeviews.leaf())
    assert sum(pause is None for pause in updater.reconcile_steps(report(), DEVICES)) > 200


def test_leaf_reads_no_rules(kernel, updater):
    """It has no trunk, so no rule can be missing."""
    kernel.ran.clear()
    finish(updater.reconcile_rules_steps(DEVICES))
    assert kernel.ran == []
