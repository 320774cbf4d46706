"""Comparison of planned and measured paths, without a lab."""

from __future__ import annotations

from .expectation import LanHost, faults, planned_path, targets
from .overlay import Trip
from .table import table

PATHS = {
    "web1": {"app1": ["web1", "r1", "r2", "app1"], "gw1": ["web1", "r1", "gw1"]},
    "app1": {"web1": ["app1", "r2", "r1", "web1"]},
    "gw1": {"web1": ["gw1", "r2", "web1"]},
}
BY_FAMILY = {4: PATHS, 6: {"app1": {"web1": ["app1", "r1", "web1"]}}}
PRINTER = LanHost(name="printer", gateway="gw1", address="192.168.50.20")


def trip(*path: str, times: tuple[float, ...] = (1.0, 2.0, 9.0), address: str = "10.100.0.9") -> Trip:
    return Trip(source=path[0], target=path[-1], address=address, round_trips=times, path=path)


def test_lan_host_is_behind_its_gateway():
    """The planned path to or from a LAN host is that of its gateway, with one more hop."""
    assert planned_path(PATHS, "web1", "printer", PRINTER) == ("web1", "r1", "gw1", "printer")
    assert planned_path(PATHS, "printer", "web1", PRINTER) == ("printer", "gw1", "r2", "web1")
    assert planned_path(PATHS, "gw1", "printer", PRINTER) == ("gw1", "printer")
    assert planned_path(PATHS, "printer", "gw1", PRINTER) == ("printer", "gw1")


def test_unplanned_pair_has_no_path():
    """A pair that is not in the plan has no planned path."""
    assert planned_path(PATHS, "app1", "printer", PRINTER) is None
    assert planned_path(PATHS, "unknown", "web1") is None


def test_planned_trip_is_no_fault():
    """A trip that arrived by the planned path is no fault."""
    assert faults([trip("web1", "r1", "r2", "app1")], BY_FAMILY) == []


def test_each_family_has_its_own_path():
    """The path that is planned for IPv4 is a fault for an IPv6 packet whose plan differs."""
    assert faults([trip("app1", "r1", "web1", address="fd00:64::1")], BY_FAMILY) == []
    assert len(faults([trip("app1", "r2", "r1", "web1", address="fd00:64::1")], BY_FAMILY)) == 1


def test_fault_describes_its_trip():
    """A lost trip, another path and an unplanned pair have a sentence each."""
    lost = Trip(source="web1", target="app1", address="10.100.0.9", round_trips=(), path=("web1", "r1", "?"))
    assert faults([lost, trip("app1", "r3", "web1"), trip("r1", "web1")], BY_FAMILY) == [
        "web1 to app1 (10.100.0.9): no answer; shown on the way: web1 → r1 → ?",
        "app1 to web1 (10.100.0.9): went app1 → r3 → web1, planned was app1 → r2 → r1 → web1",
        "r1 to web1 (10.100.0.9): arrives, but the plan has no path for it",
    ]


def test_all_pairs_are_measured_both_ways():
    """All pairs are targets in both directions: nodes in both families, the LAN host in IPv4."""
    overlay = {"a": ("10.100.0.1", "fd00:64::1"), "gw1": ("10.100.0.2", "fd00:64::2")}
    assert targets(overlay, PRINTER) == {
        "a": {"gw1": ("10.100.0.2", "fd00:64::2"), "printer": ("192.168.50.20",)},
        "gw1": {"a": ("10.100.0.1", "fd00:64::1"), "printer": ("192.168.50.20",)},
        "printer": {"a": ("10.100.0.1",), "gw1": ("10.100.0.2",)},
    }


def test_table_has_one_line_per_pair():
    """A pair has one line with the round trips of both directions."""
    lines = table([trip("app1", "r2", "r1", "web1"), trip("web1", "r1", "r2", "app1", times=())])
    assert len(lines) == 3
    assert lines[2].split() == ["app1", "⇄", "web1", "2.0", "/", "lost", "app1", "→", "r2", "→", "r1", "→", "web1"]


def test_table_shows_different_return_path():
    """A pair with another return path has both paths in its line."""
    lines = table([trip("app1", "r2", "web1"), trip("web1", "r1", "app1")])
    assert lines[2].endswith("app1 → r2 → web1; back app1 → r1 → web1")
