"""Planned against measured, without a lab."""

from __future__ import annotations

from .expectation import LanHost, faults, planned_path, targets
from .overlay import Trip
from .table import table

PATHS = {
    "web1": {"app1": ["web1", "r1", "r2", "app1"], "gw1": ["web1", "r1", "gw1"]},
    "app1": {"web1": ["app1", "r2", "r1", "web1"]},
    "gw1": {"web1": ["gw1", "r2", "web1"]},
}
PRINTER = LanHost(name="printer", gateway="gw1", address="192.168.50.20")


def trip(*path: str, times: tuple[float, ...] = (1.0, 2.0, 9.0), address: str = "10.100.0.9") -> Trip:
    return Trip(source=path[0], target=path[-1], address=address, round_trips=times, path=path)


def test_a_lan_host_is_one_hop_beyond_its_gateway():
    assert planned_path(PATHS, "web1", "printer", PRINTER) == ("web1", "r1", "gw1", "printer")
    assert planned_path(PATHS, "printer", "web1", PRINTER) == ("printer", "gw1", "r2", "web1")
    assert planned_path(PATHS, "gw1", "printer", PRINTER) == ("gw1", "printer")
    assert planned_path(PATHS, "printer", "gw1", PRINTER) == ("printer", "gw1")


def test_a_pair_that_the_plan_does_not_know_has_no_path():
    assert planned_path(PATHS, "app1", "printer", PRINTER) is None
    assert planned_path(PATHS, "nobody", "web1") is None


def test_a_trip_as_planned_is_no_fault():
    assert faults([trip("web1", "r1", "r2", "app1")], PATHS) == []


def test_each_fault_says_what_happened():
    lost = Trip(source="web1", target="app1", address="10.100.0.9", round_trips=(), path=("web1", "r1", "?"))
    assert faults([lost, trip("app1", "r3", "web1"), trip("r1", "web1")], PATHS) == [
        "web1 to app1 (10.100.0.9): no answer; shown on the way: web1 → r1 → ?",
        "app1 to web1 (10.100.0.9): went app1 → r3 → web1, planned was app1 → r2 → r1 → web1",
        "r1 to web1 (10.100.0.9): arrives, but the plan has no path for it",
    ]


def test_everybody_is_measured_in_both_directions():
    overlay = {"a": ("10.100.0.1", "fd00:64::1"), "gw1": ("10.100.0.2", "fd00:64::2")}
    assert targets(overlay, PRINTER) == {
        "a": {"gw1": ("10.100.0.2", "fd00:64::2"), "printer": ("192.168.50.20",)},
        "gw1": {"a": ("10.100.0.1", "fd00:64::1"), "printer": ("192.168.50.20",)},
        "printer": {"a": ("10.100.0.1",), "gw1": ("10.100.0.2",)},
    }


def test_the_table_has_a_line_a_pair():
    lines = table([trip("app1", "r2", "r1", "web1"), trip("web1", "r1", "r2", "app1", times=())])
    assert len(lines) == 3
    assert lines[2].split() == ["app1", "⇄", "web1", "2.0", "/", "lost", "app1", "→", "r2", "→", "r1", "→", "web1"]


def test_the_table_tells_when_the_way_back_is_another():
    lines = table([trip("app1", "r2", "web1"), trip("web1", "r1", "app1")])
    assert lines[2].endswith("app1 → r2 → web1; back app1 → r1 → web1")
