"""Meshes of one policy share nothing that follows from their names: no routing table, no file, no table of nftables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import PolicyError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.minion.state import admin_down, keys, link_report_file, store
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import instance, process

CLASHING = ("m813", "m2055")
"""Two names of which CRC-32 makes one table."""
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,9}", fullmatch=True)
ENDS = st.sampled_from(["", ".lock", ".json", ".key", ".admin-down", ".log", ".pid"])
MESH_NAMES = (
    NAMES
    | st.sampled_from([*CLASHING, "outcomes.json", "underlay.json", "lost.key", "watch", "supervise", "watch.lock"])
    | st.builds(str.__add__, st.sampled_from(["wg0", "wg1", "outcomes", "watch"]), ENDS)
)


def meshes(*names: object, absent: tuple[str, ...] = ()) -> dict[object, object]:
    """Return a policy with meshes of these names, which have nothing else in common."""
    found: dict[object, object] = dict.fromkeys(absent, "absent")
    for number, name in enumerate(names, start=1):
        found[name] = {
            "interface": f"net{number}",
            "network": f"10.{number}.0.0/16",
            "listen_port": 50000 + number,
            "nodes": {"a": {}},
        }
    return found


def problems(raw: object) -> list[str]:
    """Return the problems of a policy in words; none if it is accepted."""
    try:
        policy.parse_policy(raw)
    except PolicyError as error:
        return [str(problem) for problem in error.problems]
    return []


def node_files(mesh: str) -> set[Path]:
    """Return the paths on a node that are those of *mesh* alone."""
    host = Host()
    kept = Store(host=host, mesh=mesh)
    return {kept.folder, kept.lock, link_report_file.report_path(host, mesh), admin_down.request_path(host, mesh)}


def shared_files() -> set[Path]:
    """Return the paths on a node that are those of no mesh."""
    host = Host()
    state = {host.state_dir / name for name in (store.OUTCOMES, store.UNDERLAY, constants.LOST_KEY_FILE, keys.LOCK)}
    locks = (instance.WATCHER_LOCK, instance.SUPERVISOR_LOCK)
    pid_files = {instance.pid_file(host, lock) for lock in locks}
    return {*state, *pid_files, *(host.run_dir / name for name in (*locks, process.LOG_FILE))}


@given(first=MESH_NAMES, second=MESH_NAMES)
def test_accepted_meshes_share_nothing(first: str, second: str) -> None:
    """Whatever their names are. A policy with two that would is refused, and the problem names one of them."""
    assume(first != second)
    found = problems(meshes(first, second))
    if found:
        assert all(re.match(r"wgmesh:('.*'|[^:]+): ", problem) for problem in found)
        return
    assert constants.trunk_table(first) != constants.trunk_table(second)
    assert constants.nft_table(first) != constants.nft_table(second)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9/\\_.-]*", constants.nft_table(first))
    assert not node_files(first) & node_files(second)
    assert not node_files(first) & shared_files()


def test_meshes_of_one_table_are_refused() -> None:
    """The problem names both, and the remedy."""
    assert problems(meshes(*CLASHING)) == [
        "wgmesh:m813: its routing table 870928782 is also that of wgmesh:m2055; "
        "give it another name: the table follows from that"
    ]


def test_mesh_with_table_of_absent_mesh_is_refused() -> None:
    """A node that removes the absent one would empty the table of the other. Two absent ones are no problem."""
    (problem,) = problems(meshes("m813", absent=("m2055",)))
    assert problem.startswith("wgmesh:m813: its routing table 870928782 is also that of wgmesh:m2055")
    assert problems(meshes("wg0", absent=CLASHING)) == []


@pytest.mark.parametrize("name", ["wg0.lock", "outcomes.json", "underlay.json", "lost.key"])
@pytest.mark.parametrize("has_interface", [True, False])
def test_name_of_a_node_file_is_refused(name: str, has_interface: bool) -> None:
    """The mesh's folder would be in the place of the file. Such a mesh can be removed."""
    raw = meshes(name)
    if not has_interface:
        raw[name].pop("interface")  # type: ignore[attr-defined]
    assert f"wgmesh:{name}: '{name}' can't be the name of a mesh" in problems(raw)[0]
    assert problems(meshes("wg0", absent=(name,))) == []


@pytest.mark.parametrize("mesh", ["\ud800", "", 7, None, "a\nb"])
def test_unreadable_name_is_a_problem(mesh: object) -> None:
    """No name ends the parser with another error."""
    assert problems(meshes(mesh))
