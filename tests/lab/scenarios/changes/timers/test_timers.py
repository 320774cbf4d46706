"""What is a number on every interface or peer is changed in place."""

from __future__ import annotations

from ....mesh import Mesh
from ..edits import changed, edited, intervals, keepalives, mtus, policy

SOME = [lambda m: m.update(mtu=1400), lambda m: m.update(keepalive=20), lambda m: m.update(bfd={"interval": 200})]


def test_the_mtu_is_changed(mesh: Mesh):
    changed(mesh, "mtu", edited(*SOME[:1]), lambda: mtus(mesh) == {1400})


def test_the_keepalive_is_changed(mesh: Mesh):
    assert "20" not in keepalives(mesh)
    changed(mesh, "keepalive", edited(*SOME[:2]), lambda: keepalives(mesh) <= {"20", "off"})


def test_the_watchers_pace_is_changed(mesh: Mesh):
    """Both ends of a link agree on the slower of their wishes, so it may take no link down on the way."""
    changed(mesh, "bfd interval", edited(*SOME), lambda: min(intervals(mesh)) >= 200)


def test_all_three_go_back_at_once(mesh: Mesh):
    def back() -> bool:
        return mtus(mesh) == {1420} and keepalives(mesh) <= {"25", "off"} and min(intervals(mesh)) == 100

    changed(mesh, "all three back", policy(), back)
