"""The numbers of relays, from which the names and ports of uplinks and trunks are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import Problem
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import MeshPolicy


def number_relays(relays: Sequence[str], allocations: Allocations) -> dict[str, int]:
    """Return relay → number: its allocated one, else the smallest that no relay has had, in the order of *relays*."""
    numbers = dict(allocations.relay_numbers)
    used = set(numbers.values())
    free = 1
    for relay in relays:
        if relay not in numbers:
            while free in used:
                free += 1
            numbers[relay] = free
            used.add(free)
    return dict(sorted(numbers.items()))


def unusable_numbers(mesh: MeshPolicy, relays: Iterable[str], numbers: Mapping[str, int]) -> list[Problem]:
    """Return a problem for each relay whose number makes an interface name too long or a port too high."""
    problems = []
    for relay in relays:
        name = constants.trunk_name(mesh.interface, numbers[relay])
        port = constants.trunk_port(mesh.listen_port, numbers[relay])
        if len(name) > constants.IFNAMSIZ:
            message = f"interfaces towards it would be named {name}, longer than {constants.IFNAMSIZ} characters"
            problems.append(Problem(path=f"node {relay}", message=message, remedy="give the mesh a shorter interface"))
        if port > 65535:
            message = f"trunks towards it would listen on port {port}"
            problems.append(Problem(path=f"node {relay}", message=message, remedy="give the mesh a lower listen_port"))
        elif mesh.port_limit and numbers[relay] > mesh.port_limit.number:
            message = f"trunks towards relay number {numbers[relay]} have no ports: {mesh.port_limit.reason}"
            remedy = "choose ports that are further apart: numbers of former relays are not used again"
            problems.append(Problem(path=f"node {relay}", message=message, remedy=remedy))
    return problems
