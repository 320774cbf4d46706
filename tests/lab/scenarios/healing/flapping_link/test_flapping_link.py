"""A link that flaps is used ever less."""

from __future__ import annotations

from .... import faults
from ....drill import HEALED, mended, says, streaming, word
from ....mesh import Mesh
from ....wait import wait_until

PAIRS = {"web1": "web2"}
FLAPS = 4


def test_each_return_is_held_for_longer(mesh: Mesh):
    """Twice as long as before, from one second on; and no return costs anything."""
    holds = []
    with streaming(mesh, PAIRS) as felt:
        for _ in range(FLAPS):
            with faults.cut(mesh.lab.underlay, "web1", "web2"):
                wait_until(lambda: says(mesh, "web1", "web2", "down"), 10, "the link to be found dead", every=0.2)
            holds.append(word(mesh, "web1", "web2")["hold"])
            wait_until(lambda: says(mesh, "web1", "web2", "up"), 30, "the link to be used again", every=0.2)
    # A link that is up for less than a minute flaps the first time already.
    assert holds[0] in (0.0, 1.0)
    assert holds[1:] == [2 * hold or 1.0 for hold in holds[:-1]]
    assert felt.longest < HEALED
    # An address has one gap for each time that the link was found dead, at most.
    assert all(len(loss.gaps) <= FLAPS for loss in felt.losses), felt.losses


def test_in_the_end_nothing_is_lost(mesh: Mesh):
    assert mended(mesh, PAIRS).losing == []
