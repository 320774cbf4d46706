"""A flapping link is held down for longer with each flap."""

from __future__ import annotations

from .... import faults
from ....disruption import HEALED, link_is, link_report, mended, streaming
from ....mesh import Mesh
from ....wait import wait_until

PAIRS = {"web1": "web2"}
FLAPS = 4


def test_hold_down_doubles_with_each_flap(mesh: Mesh):
    """The hold-down time doubles with each flap, from one second. Each fault causes at most one gap, a return none."""
    holds = []
    with streaming(mesh, PAIRS) as felt:
        for _ in range(FLAPS):
            with faults.cut(mesh.lab.underlay, "web1", "web2"):
                wait_until(lambda: link_is(mesh, "web1", "web2", "down"), 10, "the link to be found dead", every=0.2)
            holds.append(link_report(mesh, "web1", "web2")["hold"])
            wait_until(lambda: link_is(mesh, "web1", "web2", "up"), 30, "the link to be used again", every=0.2)
    # A link that is up for less than a minute flaps the first time already.
    assert holds[0] in (0.0, 1.0)
    assert holds[1:] == [2 * hold or 1.0 for hold in holds[:-1]]
    assert felt.longest < HEALED
    # At most one gap per address and fault.
    assert all(len(loss.gaps) <= FLAPS for loss in felt.losses), felt.losses


def test_end_of_flapping_loses_no_packet(mesh: Mesh):
    """The link is used again after its last flap, and no packet is lost."""
    assert mended(mesh, PAIRS).losing == []
