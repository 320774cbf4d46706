"""Numeric settings of interfaces and peers are changed in place."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, intervals, keepalives, mtus, policy

SOME = [lambda m: m.update(mtu=1400), lambda m: m.update(keepalive=20), lambda m: m.update(bfd={"interval": 200})]


def test_mtu_is_changed(mesh: Mesh):
    """All interfaces get the new MTU."""
    changed(mesh, "mtu", edited(*SOME[:1]), lambda: mtus(mesh) == {1400})


def test_keepalive_is_changed(mesh: Mesh):
    """All peers with a keepalive get the new one."""
    assert "20" not in keepalives(mesh)
    changed(mesh, "keepalive", edited(*SOME[:2]), lambda: keepalives(mesh) <= {"20", "off"})


def test_bfd_interval_is_changed(mesh: Mesh):
    """Both ends of a link agree on the slower interval. No link goes down while only one end has the new one."""
    changed(mesh, "bfd interval", edited(*SOME), lambda: min(intervals(mesh)) >= 200)


def test_all_settings_return_at_once(mesh: Mesh):
    """MTU, keepalive and BFD interval return to their defaults in one change."""

    def back() -> bool:
        return mtus(mesh) == {1420} and keepalives(mesh) <= {"25", "off"} and min(intervals(mesh)) == 100

    changed(mesh, "all three back", policy(), back)
