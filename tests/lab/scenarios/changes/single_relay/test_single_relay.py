"""The cost of a change in a mesh whose only relay forwards all traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from ....disruption import PLANNED, whole
from ....lossless import undisturbed
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until
from ..edits import TALKS, changed, closed, converge, edited, ports, restored, stems

RELAY, GONE = "relay-fra1", ("relay-fra2", "relay-nyc1")
LEAVES = ("web1", "app1", "gw1", "laptop")
CLOSED = 51999
HANDSHAKE = 5.0
"""Seconds after which WireGuard tries a handshake again (REKEY_TIMEOUT)."""


def _hub(mesh: dict) -> None:
    mesh["topology"] = "hub"
    mesh["sites"] = {site: {"relays": [RELAY]} for site in mesh["sites"]}
    mesh["nodes"] = {name: rule for name, rule in mesh["nodes"].items() if name not in GONE}


@pytest.fixture(scope="module")
def hub(mesh: Mesh) -> Iterator[Mesh]:
    """Yield the mesh with one relay, after the others have left it."""
    rest = replace(mesh, members=tuple(n for n in mesh.members if n not in GONE))
    converge(rest, edited(_hub), lambda: True)
    yield rest
    restored(mesh)


def test_closed_port_is_rolled_back_by_master(hub: Mesh):
    """No node has another path. The master detects it, pins the mesh to the policy before, and reports why."""
    before = ports(hub)
    with closed(hub.lab.underlay[RELAY], str(CLOSED)):
        hub.lab.salt.set_policy(edited(_hub, lambda m: m.update(listen_port=CLOSED)))
        with suppress(CommandFailed):
            hub.lab.salt.salt_run("wgmesh.converge")
        wait_until(lambda: "policy_pin" in status(hub.lab.salt, hub.name), 4 * PLANNED, "it to go back", every=1.0)
        wait_until(lambda: ports(hub) == before, 2 * PLANNED, "the nodes to be back", every=1.0)
        hub.settle(deadline=2 * PLANNED)
        assert hub.faults() == []
    assert RELAY in status(hub.lab.salt, hub.name)["policy_pin"]["why"]
    # The next step must start with a mesh without faults.
    whole(hub)


def test_port_change_has_short_gap(hub: Mesh):
    """The relay's port changes, and no gap is longer than a repeated handshake."""
    wanted = edited(_hub, lambda m: m.update(listen_port=51920))
    changed(hub, "port, one relay", wanted, lambda: ports(hub) == {51920}, leaves=LEAVES, allowed=HANDSHAKE)


def test_key_change_has_short_gap(hub: Mesh):
    """The relay's key changes, and no gap is longer than a repeated handshake."""
    before = _key(hub)
    with undisturbed(hub, "key, one relay", talks=TALKS, leaves=LEAVES, concerned=[RELAY], allowed=HANDSHAKE):
        hub.lab.salt.salt_run("wgmesh.rotate", RELAY, timeout=300)
        wait_until(lambda: _key(hub) != before, 4 * PLANNED, "the relay to have another key", every=1.0)
        hub.settle(deadline=2 * PLANNED)
    assert hub.faults() == []


def test_interface_rename_has_short_gap(hub: Mesh):
    """The relay's interfaces are renamed, and no gap is longer than a repeated handshake."""
    wanted = edited(_hub, lambda m: m.update(listen_port=51920, interface="office0"))
    more = {"leaves": LEAVES, "allowed": HANDSHAKE}
    changed(hub, "interface, one relay", wanted, lambda: stems(hub) == {"office0"}, hub.members, **more)


def _key(mesh: Mesh) -> str:
    return mesh.lab.underlay[RELAY].run("wg", "show", mesh.name, "public-key").strip()
