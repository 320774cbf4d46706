"""Checks that each UDP port that the meshes need has one user: at each host of an endpoint, and on each node.

A relay needs a port for its access interface, and the ports after it for its trunks. The trunk to the relay with number
n has the port plus n, on the node and at its endpoint. Numbers are never used again, so they grow beyond the count of
relays. ``port_limit`` returns how far they may grow, and the planner compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs.converters import Problems, name_in_path
from saltext_wgmesh.core.model.policy import Endpoint, MeshPolicy, PortLimit, Role

MAX_PORT = 65535
_OWN_PORTS = {constants.BFD_PORT: "BFD", constants.SBFD_PORT: "BFD's reflector"}
"""UDP ports at which the watcher listens on each node (RFC 5881, RFC 7881)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _EndpointClaim:
    """The ports that one node needs at the host of its endpoint."""

    endpoint: Endpoint
    mesh: MeshPolicy
    node: str
    is_relay: bool

    @property
    def last(self) -> int:
        """The last of its ports, if the relays have the lowest numbers."""
        return self.endpoint.port + (trunk_count(self.mesh) if self.is_relay else 0)

    @property
    def path(self) -> str:
        """The path of the endpoint in the pillar."""
        return f"{_path(self.mesh)}:nodes:{name_in_path(self.node)}:endpoint"

    @property
    def has_listen_port(self) -> bool:
        """Whether the endpoint has the port at which the node listens."""
        return self.endpoint.port == self.mesh.listen_port


def check_ports(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Add a problem for each port that two users need, or that does not exist, to *problems*."""
    for index, mesh in enumerate(meshes):
        path = f"{_path(mesh)}:listen_port"
        first, last = mesh.listen_port, _last_port(mesh)
        if last > MAX_PORT:
            message = f"its relays would need ports {first} to {last}"
            problems.add(path, message, f"choose at most {MAX_PORT - trunk_count(mesh)}")
        for port, user in _OWN_PORTS.items():
            if first <= port <= last:
                message = f"UDP ports {_ports(first, last)} contain {port}, which {user} needs on each node"
                problems.add(path, message, "choose other ports")
        # One node may be in all meshes.
        for other in meshes[:index]:
            if first <= _last_port(other) and other.listen_port <= last:
                ports = _ports(other.listen_port, _last_port(other))
                message = f"UDP ports {_ports(first, last)} overlap {ports} of {_path(other)}"
                problems.add(path, message, "choose ports that are apart: one, and one more a relay")
    for claims in _claims_by_host(meshes):
        _check_host(claims, problems)


def with_port_limits(meshes: Sequence[MeshPolicy]) -> list[MeshPolicy]:
    """Return *meshes*, each with the highest number that a relay may get before its trunks meet another user's port."""
    claims = _claims_by_host(meshes)
    return [replace(mesh, port_limit=_port_limit(mesh, claims)) for mesh in meshes]


def trunk_count(mesh: MeshPolicy) -> int:
    """Return the highest number of a relay in a new mesh of this policy; 0 if there are no trunks."""
    relays = sum(rule.role is Role.RELAY for rule in mesh.nodes)
    return relays if relays >= 2 else 0


def _check_host(claims: Sequence[_EndpointClaim], problems: Problems) -> None:
    """Check the claims of one host, sorted by port."""
    widest: _EndpointClaim | None = None
    for claim in claims:
        ports = _ports(claim.endpoint.port, claim.last)
        if claim.last > MAX_PORT and not claim.has_listen_port:
            message = f"trunks would call ports {ports} there"
            problems.add(claim.path, message, f"choose a port of at most {MAX_PORT - trunk_count(claim.mesh)}")
        if widest and claim.endpoint.port <= widest.last and not _is_reported_elsewhere(widest, claim):
            taken = _ports(widest.endpoint.port, widest.last)
            message = f"UDP ports {ports} of {claim.endpoint.host} overlap {taken}, which are those of {widest.path}"
            problems.add(claim.path, message, "choose ports that are apart: for a relay one, and one more a relay")
        if widest is None or claim.last > widest.last:
            widest = claim


def _is_reported_elsewhere(a: _EndpointClaim, b: _EndpointClaim) -> bool:
    """Whether another check finds the same mistake: one endpoint twice in a mesh, or two meshes with one port."""
    if a.mesh is b.mesh:
        return a.endpoint == b.endpoint
    return a.has_listen_port and b.has_listen_port


def _is_same_node(a: _EndpointClaim, b: _EndpointClaim) -> bool:
    """Whether both are the ports at which one node listens: then they are compared when both plans are known."""
    return a.node == b.node and a.has_listen_port and b.has_listen_port


def _claims_by_host(meshes: Sequence[MeshPolicy]) -> list[list[_EndpointClaim]]:
    """Return the claims of each host, sorted by port. A name with a dot at the end is the name without it."""
    found: dict[str, list[_EndpointClaim]] = {}
    for mesh in meshes:
        for rule in mesh.nodes:
            if rule.endpoint:
                is_relay = rule.role is Role.RELAY
                claim = _EndpointClaim(endpoint=rule.endpoint, mesh=mesh, node=rule.pattern, is_relay=is_relay)
                found.setdefault(rule.endpoint.host.removesuffix("."), []).append(claim)
    return [sorted(claims, key=lambda claim: claim.endpoint.port) for claims in found.values()]


def _port_limit(mesh: MeshPolicy, claims_by_host: Sequence[Sequence[_EndpointClaim]]) -> PortLimit | None:
    if not trunk_count(mesh):
        return None
    limits = [*_limits_on_nodes(mesh), *_limits_at_hosts(mesh, claims_by_host)]
    return min(limits, key=lambda limit: limit.number)


def _limits_on_nodes(mesh: MeshPolicy) -> Iterator[PortLimit]:
    """Yield the limits by other users of a node. Ports of two meshes are compared when both plans are known."""
    first = mesh.listen_port
    yield PortLimit(number=MAX_PORT - first, reason=f"ports end at {MAX_PORT}, and listen_port is {first}")
    for port, user in _OWN_PORTS.items():
        if port > first:
            yield PortLimit(number=port - first - 1, reason=f"UDP port {port} is that of {user}")


def _limits_at_hosts(mesh: MeshPolicy, claims_by_host: Sequence[Sequence[_EndpointClaim]]) -> Iterator[PortLimit]:
    for claims in claims_by_host:
        for index, claim in enumerate(claims):
            if claim.mesh is not mesh or not claim.is_relay:
                continue
            port, host = claim.endpoint.port, claim.endpoint.host
            yield PortLimit(number=MAX_PORT - port, reason=f"ports end at {MAX_PORT}, and it is reached at {port}")
            after = next(
                (c for c in claims[index + 1 :] if c.endpoint.port > port and not _is_same_node(claim, c)), None
            )
            if after:
                reason = f"port {after.endpoint.port} of {host} is that of {after.path}"
                yield PortLimit(number=after.endpoint.port - port - 1, reason=reason)


def _last_port(mesh: MeshPolicy) -> int:
    """Return the highest UDP port that a node of the mesh may listen on, if the relays have the lowest numbers."""
    return constants.trunk_port(mesh.listen_port, trunk_count(mesh))


def _ports(first: int, last: int) -> str:
    return str(last) if last == first else f"{first}-{last}"


def _path(mesh: MeshPolicy) -> str:
    return f"{constants.PILLAR_POLICY}:{name_in_path(mesh.name)}"
