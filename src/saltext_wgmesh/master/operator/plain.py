"""The values that ``salt-run`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from saltext_wgmesh.master.operator.converge_result import ConvergeResult

NO_PORTS = "no node calls another"
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class Judged(Protocol):
    """The record of one mesh, which has an exit status."""

    @property
    def has_failed(self) -> bool:
        """Whether ``salt-run`` exits with 1."""

    def as_dict(self) -> Mapping[str, Any]:
        """Plain values."""


def with_exit_status(meshes: Mapping[str, Judged]) -> Any:
    """Mesh → its plain values; with ``retcode`` 1 if one of the meshes has failed."""
    found: dict[str, Any] = {mesh: one.as_dict() for mesh, one in meshes.items()}
    return found | ({"retcode": 1} if any(one.has_failed for one in meshes.values()) else {})


def converged(result: ConvergeResult) -> Any:
    """The plain values of *result*; the sentence alone for a caller that does not wait."""
    return result.queued or result.as_dict()


def ports(meshes: Mapping[str, Mapping[str, Any]]) -> Any:
    """*meshes*, mesh → the ports of its nodes, with a sentence for a mesh that needs none."""
    return {mesh: nodes or NO_PORTS for mesh, nodes in meshes.items()}


def without_empty(value: Any) -> Any:
    """*value* without the keys and items, at any depth, that have no content; numbers and booleans always have some.

    Salt's outputs print such keys as bare lines, which an operator must read to learn nothing.
    """
    if isinstance(value, dict):
        return {key: item for key, each in value.items() if (item := without_empty(each)) not in _EMPTY}
    if isinstance(value, (list, tuple)):
        return [item for each in value if (item := without_empty(each)) not in _EMPTY]
    return value
