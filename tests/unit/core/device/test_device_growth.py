"""No step of an apply grows faster than what it works on: four times the peers or interfaces, four times the calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from saltext_wgmesh.core.device import change_plan, commands, desired, ip_cli, route_selection, tolerated, wg_quick
from saltext_wgmesh.core.device.diff import Setting, SettingChange, diff
from saltext_wgmesh.core.device.state import KernelState
from saltext_wgmesh.core.model.view import Peer, View
from saltext_wgmesh.minion.apply.outcome import describe_result
from tests import nodeviews
from tests.unit.harness.operations import LINEAR, calls, growth

OWN = desired.LocalNode(public_key=nodeviews.key(1), families=frozenset({4, 6}))
PATHS = commands.KeyPaths(key_file="/key", psk_folder="/psks")
Step = Callable[[int], Callable[[], object]]


def with_leaves(count: int, *, endpoint: str | None = None) -> View:
    """Return a relay with one other relay and *count* leaves."""
    return nodeviews.relay(leaves=tuple(leaf(i, endpoint) for i in range(count)))


def leaf(number: int, endpoint: str | None = None) -> Peer:
    """Return leaf *number* as a peer; its key depends on its number alone."""
    address = f"10.100.{1 + number // 250}.{number % 250}"
    return replace(
        nodeviews.peer(1, f"{address}/32", endpoint=endpoint),
        node=f"leaf{number}",
        address=address,
        public_key=str(number),
    )


def with_trunks(count: int, first_port: int = 51_000) -> View:
    """Return a relay of *count* other relays; each trunk has a port of its own, from *first_port* on."""
    view = nodeviews.relay(trunks=tuple(range(2, 2 + count % 250)))
    model = view.interfaces[-1]
    trunks = (
        replace(
            model,
            name=f"wg0-t{i}",
            listen_port=first_port + i,
            peers=(replace(model.peers[0], node=f"relay{i}", public_key=f"relay{i}"),),
        )
        for i in range(count)
    )
    return replace(view, interfaces=(view.interfaces[0], *trunks))


def state(view: View) -> KernelState:
    """Return the kernel that *view* asks for."""
    return desired.desired_state(view, route_selection.select_routes(view), OWN)


def with_foreign_devices(view: View) -> KernelState:
    """Return the kernel of *view* where each trunk has another key, so that its changes disturb it."""
    made = state(view)
    return replace(made, devices=tuple(replace(d, public_key="former") for d in made.devices))


def first_apply(count: int) -> Callable[[], object]:
    """Plan the first apply of a relay."""
    view = with_leaves(count)
    changes = diff(KernelState(), state(view))
    return lambda: change_plan.plan_changes(changes, None, view, frozenset())


def moved_endpoints(count: int) -> Callable[[], object]:
    """Plan an apply in which all neighbours of one interface have moved."""
    before, after = (with_leaves(count, endpoint=f"192.0.2.{n}:1") for n in (1, 2))
    changes = diff(state(before), state(after))
    return lambda: change_plan.plan_changes(changes, before, after, frozenset())


def shifted_ports(count: int) -> Callable[[], object]:
    """Plan an apply in which each trunk gets the port of the next one: a chain of interfaces that wait."""
    before, after = with_trunks(count), with_trunks(count, first_port=51_001)
    changes = diff(state(before), state(after))
    return lambda: change_plan.plan_changes(changes, before, after, frozenset())


def rotated_ports(count: int) -> Callable[[], object]:
    """Plan the same as a ring: the last trunk gets the port of the first."""
    before = with_trunks(count)
    ports = [i.listen_port for i in before.interfaces[1:]]
    moved = zip(before.interfaces[1:], (*ports[1:], ports[0]), strict=True)
    after = replace(before, interfaces=(before.interfaces[0], *(replace(i, listen_port=p) for i, p in moved)))
    changes = diff(state(before), state(after))
    return lambda: change_plan.plan_changes(changes, before, after, frozenset())


def of_kernel(function: Callable[[View, KernelState], object], make: Callable[[int], View]) -> Step:
    """Return the step that calls *function* with a view of a size and the kernel that it asks for."""

    def step(count: int) -> Callable[[], object]:
        view = make(count)
        kernel = state(view)
        return lambda: function(view, kernel)

    return step


STEPS: dict[str, Step] = {
    "first apply": first_apply,
    "moved endpoints": moved_endpoints,
    "shifted ports": shifted_ports,
    "ring of ports": rotated_ports,
    "difference of all": of_kernel(lambda _, kernel: diff(KernelState(), kernel), with_leaves),
    "difference of none": of_kernel(lambda _, kernel: diff(kernel, kernel), with_leaves),
    "difference of trunks": of_kernel(lambda view, kernel: diff(with_foreign_devices(view), kernel), with_trunks),
    "commands": of_kernel(lambda _, kernel: list(commands.commands(diff(KernelState(), kernel), PATHS)), with_leaves),
    "texts": of_kernel(lambda view, kernel: describe_result(diff(KernelState(), kernel), view), with_leaves),
    "desired state": of_kernel(lambda view, _: state(view), with_leaves),
    "desired state of trunks": of_kernel(lambda view, _: state(replace(view, routes=())), with_trunks),
    "boot files": of_kernel(lambda _, kernel: wg_quick.texts("wg0", kernel, PATHS), with_leaves),
    "boot files of trunks": of_kernel(lambda _, kernel: wg_quick.texts("wg0", kernel, PATHS), with_trunks),
    "roamed endpoints": of_kernel(lambda _, kernel: tolerated.ignore_endpoints(kernel, kernel), with_leaves),
    "keys in use": of_kernel(lambda view, kernel: tolerated.follow_active_key(kernel, kernel, view), with_leaves),
    "links that last": of_kernel(lambda view, _: change_plan.self_initiated_links(view, view), with_leaves),
    "view read": of_kernel(lambda view, _: View.from_dict(view.as_dict()), with_leaves),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_step_of_apply_grows_linearly(step: Step) -> None:
    """Its calls are at most LINEAR times as many for four times as many peers or interfaces."""
    assert growth(step) < LINEAR


def test_routes_parse_grows_linearly() -> None:
    """The kernel's routes are read in one pass."""

    def step(count: int) -> Callable[[], object]:
        text = json.dumps([{"dst": f"10.100.{i // 250}.{i % 250}", "dev": "wg0", "flags": []} for i in range(count)])
        return lambda: ip_cli.parse_routes(text)

    assert growth(step) < LINEAR


def test_chain_behind_ring_follows_it() -> None:
    """Interfaces that wait for each other's ports share a step. One that waits for the ring comes after it."""
    view = with_trunks(4)
    moves = {1: 2, 2: 1, 3: 1}
    released = [_port(number, 51_000 + number, 0) for number in (1, 2)]
    moved = [_port(number, 51_000 + number, 51_000 + to) for number, to in moves.items() if number != 3]
    changes = [*released, *moved, _port(3, 51_003, 51_001)]
    plan = change_plan.plan_changes(changes, view, view, frozenset())
    assert [step.interfaces for step in plan.disruptive] == [("wg0-t1", "wg0-t2"), ("wg0-t3",)]


def _port(number: int, old: int, new: int) -> SettingChange:
    return SettingChange(device=f"wg0-t{number}", setting=Setting.PORT, old=str(old), new=str(new))


def test_first_apply_takes_few_calls() -> None:
    """The changes are planned with some calls for each, not with a set of all for each."""
    view = with_leaves(500)
    changes = diff(KernelState(), state(view))
    taken = calls(lambda: change_plan.plan_changes(changes, None, view, frozenset()))
    assert taken < 40 * len(changes)
