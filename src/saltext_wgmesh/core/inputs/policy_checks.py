"""Checks of a policy's values against each other: each contradiction becomes a problem.

A check that depends on a field is skipped where that field could not be read, so that one mistake gives one problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs.converters import Problems, name_in_path, quoted, suggestion
from saltext_wgmesh.core.inputs.endpoints import literal_of
from saltext_wgmesh.core.inputs.node_matching import has_wildcards, matcher
from saltext_wgmesh.core.inputs.port_checks import check_ports
from saltext_wgmesh.core.inputs.prefixes import (
    AddressClaim,
    ClaimKind,
    contains,
    contains_range,
    host_network,
    overlaps,
)
from saltext_wgmesh.core.model.policy import MeshPolicy, NodeRule, Role, Site

_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*")
"""Names that wg-quick accepts, without those that begin with ``-`` or ``.``."""
_TAKEN = {"all", "default", "lo"}
"""Names that mean something else in /proc/sys/net/*/conf."""
_DERIVED = re.compile(r"(.+)-[ut][0-9]+")
_MAX_NAME = 64
"""Characters of a mesh's name, which becomes part of file names."""
_MAX_RELAY_NUMBER = 99
"""Relay numbers for which an interface name must leave room, however few relays there are now."""


def mesh_path(mesh: str) -> str:
    """Return the path of a mesh in the pillar."""
    return f"{constants.PILLAR_POLICY}:{name_in_path(mesh)}"


def interface_path(mesh: MeshPolicy) -> str:
    """Return the path that names the interfaces of *mesh*: its key ``interface``, or else the mesh itself."""
    return mesh_path(mesh.name) if mesh.interface == mesh.name else f"{mesh_path(mesh.name)}:interface"


def check_policy(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Add every contradiction within and between *meshes* to *problems*."""
    for mesh in meshes:
        _MeshChecks(mesh, mesh_path(mesh.name), matcher(mesh.nodes), problems).check()
    _check_claims(meshes, problems)
    check_ports(meshes, problems)
    _check_interfaces(meshes, problems)


@dataclass(frozen=True, slots=True)
class _MeshChecks:
    """The checks within one mesh."""

    mesh: MeshPolicy
    path: str
    find: Callable[[str], NodeRule | None]
    problems: Problems

    def check(self) -> None:
        """Add every contradiction within the mesh to the problems."""
        self.check_name()
        self.check_members()
        for rule in self.mesh.nodes:
            self.check_pattern(rule)
            self.check_role(rule)
            self.check_addresses(rule)
        self.check_unique("address", lambda rule: rule.addresses)
        self.check_unique("endpoint", lambda rule: (rule.endpoint,) if rule.endpoint else ())
        for site in self.mesh.sites.values():
            self.check_relays(site)
        self.check_blocks()
        self.check_reserved()
        for link in self.mesh.links:
            self.check_link(link)

    def node_path(self, rule: NodeRule) -> str:
        """Return the path of an entry of ``nodes`` in the pillar."""
        return f"{self.path}:nodes:{name_in_path(rule.pattern)}"

    def is_unread(self, node: str) -> bool:
        """Whether the policy may have an entry for *node* that could not be read."""
        nodes = f"{self.path}:nodes"
        return self.problems.has_problem_at(nodes) or self.problems.has_problem_at(f"{nodes}:{name_in_path(node)}")

    def check_name(self) -> None:
        """Check that the mesh's name can be part of file names, and ``interface`` of interface names."""
        path, name = interface_path(self.mesh), self.mesh.interface
        if constants.is_node_file(self.mesh.name):
            message = f"{quoted(self.mesh.name)} can't be the name of a mesh, since nodes have a file of this name"
            self.problems.add(self.path, message, f"use a name without {constants.LOCK_SUFFIX} at its end, such as wg0")
        if path != self.path and not (_INTERFACE.fullmatch(self.mesh.name) and len(self.mesh.name) <= _MAX_NAME):
            message = f"{quoted(self.mesh.name)} can't be the name of a mesh"
            self.problems.add(self.path, message, f"use at most {_MAX_NAME} letters, digits and . _ = + - as in wg0")
        if self.problems.has_problem_at(f"{self.path}:interface"):
            return
        if not _INTERFACE.fullmatch(name) or name in _TAKEN:
            message = f"{quoted(name)} can't be the name of a network interface"
            self.problems.add(path, message, "use letters, digits and . _ = + - as in wg0")
        # Uplinks and trunks are named after this interface, with the number of a relay at the end.
        relays = relay_count(self.mesh)
        room = constants.IFNAMSIZ - (len(constants.trunk_name("", max(relays, _MAX_RELAY_NUMBER))) if relays else 0)
        if len(name) > room:
            why = ", to leave room for the numbers of relays" if relays else ""
            message = f"{quoted(name)} is too long for the name of a network interface"
            self.problems.add(path, message, f"use at most {room} characters{why}")

    def check_members(self) -> None:
        """Check that there are nodes, and a relay if two nodes are behind NAT."""
        if not self.mesh.nodes and not self.problems.has_problem_below(f"{self.path}:nodes"):
            self.problems.add(f"{self.path}:nodes", "is missing or empty", "name the nodes: minion ids or globs")
        # A glob may match any number of nodes, so it counts as two.
        behind_nat = sum(2 if has_wildcards(rule.pattern) else 1 for rule in self.mesh.nodes if rule.nat)
        unread = any(self.problems.has_problem_at(f"{self.node_path(rule)}:role") for rule in self.mesh.nodes)
        if behind_nat >= 2 and not relay_count(self.mesh) and not unread:
            remedy = "give a node that others can reach role: relay and an endpoint"
            self.problems.add(self.path, "two nodes behind NAT need a relay, and there is none", remedy)

    def check_pattern(self, rule: NodeRule) -> None:
        """Check that an entry is not hidden by an earlier one, and that a glob has no values meant for one node."""
        path = self.node_path(rule)
        if not has_wildcards(rule.pattern):
            first = self.find(rule.pattern)
            if first and first is not rule:
                message = f"never counts, since {quoted(first.pattern)} stands before it and matches too"
                self.problems.add(path, message, "move it up")
            return
        remedy = "write an entry for the one node, before the glob"
        if rule.addresses:
            self.problems.add(f"{path}:address", "an address on a glob would be several nodes' address", remedy)
        if rule.endpoint:
            self.problems.add(f"{path}:endpoint", "an endpoint on a glob would be several nodes' endpoint", remedy)
        if rule.role is Role.RELAY:
            self.problems.add(f"{path}:role", "a relay on a glob can have no endpoint", remedy)

    def check_role(self, rule: NodeRule) -> None:
        """Check that relays are reachable, that no node behind NAT has an endpoint, and that the site exists."""
        path = self.node_path(rule)
        is_relay = rule.role is Role.RELAY
        if is_relay and rule.nat:
            remedy = "take nat away if others can reach it at its endpoint, else choose another relay"
            self.problems.add(f"{path}:nat", "a relay can't be behind NAT", remedy)
        elif rule.nat and rule.endpoint:
            remedy = "take nat away if others can reach it at its endpoint, else take the endpoint away"
            self.problems.add(f"{path}:nat", "a node behind NAT has no endpoint that others can reach", remedy)
        unread = self.problems.has_problem_at(f"{path}:endpoint")
        if is_relay and not rule.endpoint and not unread and not has_wildcards(rule.pattern):
            remedy = "write the host or host:port at which other nodes reach it"
            self.problems.add(f"{path}:endpoint", "a relay needs an endpoint", remedy)
        if rule.site is not None and rule.site not in self.mesh.sites:
            site_path = f"{self.path}:sites:{name_in_path(rule.site)}"
            if not self.problems.has_problem_at(site_path) and not self.problems.has_problem_at(f"{self.path}:sites"):
                remedy = suggestion(rule.site, self.mesh.sites, "the sites are")
                self.problems.add(f"{path}:site", f"there is no site {quoted(rule.site)}", remedy)

    def check_addresses(self, rule: NodeRule) -> None:
        """Check that explicit addresses are in the mesh's networks, and that a host can have them.

        An explicit address may be in a ``reserved`` range: the operator reserved it, and the operator assigns it.
        """
        path = f"{self.node_path(rule)}:address"
        for host in rule.addresses:
            network = next((n for n in self.mesh.networks if contains(n, host_network(host))), None)
            if network is None and not self.problems.has_problem_at(f"{self.path}:network"):
                networks = " and ".join(str(n) for n in self.mesh.networks)
                self.problems.add(path, f"{host} is outside the mesh's network {networks}", "choose one inside")
            # A /31 has neither a network nor a broadcast address (RFC 3021).
            if isinstance(network, IPv4Network) and network.prefixlen < 31:
                ends = {network.network_address: "network", network.broadcast_address: "broadcast"}
                if host in ends:
                    message = f"{host} is the {ends[host]} address of {network}"  # type: ignore[index]
                    self.problems.add(path, message, "choose another")

    def check_unique(self, key: str, values: Callable[[NodeRule], Iterable[object]]) -> None:
        """Check that no two nodes share an address or an endpoint, whichever *values* returns."""
        owners: dict[object, NodeRule] = {}
        for rule in self.mesh.nodes:
            for value in values(rule):
                owner = owners.setdefault(value, rule)
                if owner is not rule:
                    message = f"{value} is also the {key} of node {name_in_path(owner.pattern)}"
                    self.problems.add(f"{self.node_path(rule)}:{key}", message, "change one of them")

    def check_relays(self, site: Site) -> None:
        """Check that the relays of a site exist, each with an entry of its own."""
        path = f"{self.path}:sites:{name_in_path(site.name)}:relays"
        for relay in site.relays:
            rule = self.find(relay)
            if rule is None:
                if not self.is_unread(relay):
                    relays = (r.pattern for r in self.mesh.nodes if r.role is Role.RELAY)
                    remedy = suggestion(relay, relays, "the relays are")
                    self.problems.add(path, f"no entry of nodes matches {quoted(relay)}", remedy)
            elif has_wildcards(rule.pattern):
                message = f"{quoted(relay)} has no entry of its own, only the glob {quoted(rule.pattern)} matches it"
                self.problems.add(path, message, "write one with role: relay and an endpoint, before the glob")
            elif rule.role is not Role.RELAY and not self.problems.has_problem_at(f"{self.node_path(rule)}:role"):
                remedy = f"give {name_in_path(relay)} role: relay and an endpoint, or name another"
                self.problems.add(path, f"{quoted(relay)} is not a relay", remedy)

    def check_blocks(self) -> None:
        """Check that the sites' blocks are inside the mesh's networks, and do not overlap."""
        claims = []
        for site in self.mesh.sites.values():
            path = f"{self.path}:sites:{name_in_path(site.name)}:network"
            for block in site.networks:
                claims.append(AddressClaim(prefix=block, kind=ClaimKind.BLOCK, mesh=site.name, path=path))
                inside = any(contains(network, block) for network in self.mesh.networks)
                if not inside and not self.problems.has_problem_at(f"{self.path}:network"):
                    networks = " and ".join(str(n) for n in self.mesh.networks)
                    self.problems.add(path, f"{block} is outside the mesh's network {networks}", "choose a part of it")
        for wider, narrower in overlaps(claims):
            message = f"{narrower.prefix} overlaps {wider.prefix} of {wider.path}"
            self.problems.add(narrower.path, message, "choose blocks that are apart")

    def check_reserved(self) -> None:
        """Check that reserved ranges are inside the network of their mesh or site."""
        self.check_inside(self.path, self.mesh, "choose addresses inside")
        for site in self.mesh.sites.values():
            remedy = f"choose addresses inside, or write it in {self.path}:reserved"
            self.check_inside(f"{self.path}:sites:{name_in_path(site.name)}", site, remedy)

    def check_inside(self, path: str, owner: MeshPolicy | Site, remedy: str) -> None:
        """Add a problem for each range that *owner*, at *path*, reserves outside its network."""
        if self.problems.has_problem_at(f"{path}:network"):
            return
        owner_kind = "site" if isinstance(owner, Site) else "mesh"
        networks = " and ".join(str(n) for n in owner.networks) or "none"
        for reserved in owner.reserved:
            if not any(contains_range(network, reserved) for network in owner.networks):
                message = f"{reserved} is not inside the {owner_kind}'s network ({networks})"
                self.problems.add(f"{path}:reserved", message, remedy)

    def check_link(self, link: tuple[str, str]) -> None:
        """Check that a link has two ends, that both are members, and that one can reach the other."""
        path = f"{self.path}:links"
        rules = [self.find(end) for end in link]
        for end, rule in zip(link, rules, strict=True):
            if rule is None and not self.is_unread(end):
                remedy = suggestion(end, (r.pattern for r in self.mesh.nodes), "the entries are")
                self.problems.add(path, f"no entry of nodes matches {quoted(end)}", remedy)
        if link[0] == link[1]:
            self.problems.add(path, f"{quoted(link[0])} is linked with itself", "name two nodes")
        elif all(rule and rule.nat for rule in rules):
            message = f"{quoted(link[0])} and {quoted(link[1])} are both behind NAT, so neither can reach the other"
            self.problems.add(path, message, "take the link away: relays carry their packets")


def relay_count(mesh: MeshPolicy) -> int:
    """Return the number of relays in the policy."""
    return sum(rule.role is Role.RELAY for rule in mesh.nodes)


# --- between meshes ------------------------------------------------------------------------------------


def _check_claims(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Check that no networks of meshes or subnets behind nodes overlap, and that no endpoint is inside its mesh."""
    for wider, narrower in overlaps(_claims(meshes)):
        if narrower.kind is ClaimKind.ENDPOINT:
            if wider.kind is ClaimKind.NETWORK or (wider.kind is ClaimKind.SUBNET and wider.mesh == narrower.mesh):
                message = f"{narrower.prefix.network_address} is inside {wider.prefix} of {wider.path}"
                remedy = "write its address in the underlay, the network that carries the mesh"
                problems.add(narrower.path, message, remedy)
            continue
        # One subnet on several nodes is no contradiction: they are its gateways, in the order of the rules.
        if narrower.kind is wider.kind is ClaimKind.SUBNET and (narrower.mesh, narrower.prefix) == (
            wider.mesh,
            wider.prefix,
        ):
            continue
        # Blame the subnet: a mesh's network is harder to change.
        subnet_is_wider = wider.kind is ClaimKind.SUBNET and narrower.kind is ClaimKind.NETWORK
        blamed, other = (wider, narrower) if subnet_is_wider else (narrower, wider)
        message = f"{blamed.prefix} overlaps {other.prefix} of {other.path}"
        problems.add(blamed.path, message, "choose prefixes that are apart")


def check_former_networks(
    meshes: Sequence[MeshPolicy], former: Mapping[str, Iterable[str]], problems: Problems
) -> None:
    """Add a problem for each network or subnet of another mesh, and each endpoint, in a network of *former*.

    *former* is mesh → the networks that its nodes are leaving. The mesh's own subnets and networks wait by themselves.
    """
    listed = ((mesh, ip_network(network)) for mesh, networks in former.items() for network in networks)
    leaving = [AddressClaim(prefix=n, kind=ClaimKind.FORMER, mesh=m, path=f"{mesh_path(m)}:network") for m, n in listed]
    for pair in overlaps([*_claims(meshes), *leaving]):
        old, new = sorted(pair, key=lambda claim: claim.kind is not ClaimKind.FORMER)
        if old.kind is not ClaimKind.FORMER or new.kind is ClaimKind.FORMER:
            continue
        if new.kind is ClaimKind.ENDPOINT or new.mesh != old.mesh:
            message = f"{new.prefix} overlaps {old.prefix}, the former {old.path}, in which nodes still have addresses"
            remedy = f"take it out, converge until transition_waits_for has no {old.prefix}, and write it then"
            problems.add(new.path, message, remedy)


def _claims(meshes: Sequence[MeshPolicy]) -> Iterable[AddressClaim]:
    for mesh in meshes:
        path = mesh_path(mesh.name)
        for network in mesh.networks:
            yield AddressClaim(prefix=network, kind=ClaimKind.NETWORK, mesh=mesh.name, path=f"{path}:network")
        for rule in mesh.nodes:
            node = f"{path}:nodes:{name_in_path(rule.pattern)}"
            for subnet in rule.routes:
                yield AddressClaim(prefix=subnet, kind=ClaimKind.SUBNET, mesh=mesh.name, path=f"{node}:routes")
            literal = literal_of(rule.endpoint) if rule.endpoint else None
            if literal:
                host = host_network(ip_address(literal))
                yield AddressClaim(prefix=host, kind=ClaimKind.ENDPOINT, mesh=mesh.name, path=f"{node}:endpoint")


def check_tables(present: Collection[str], absent: Collection[str], problems: Problems) -> None:
    """Add a problem for each mesh of *present* whose routing table is also that of another mesh, present or *absent*.

    A node that removes an absent mesh empties its table. The tables follow from the names, as hashes, so the names of
    two meshes can meet.
    """
    owners: dict[int, str] = {}
    for mesh in (*sorted(absent), *sorted(present)):
        table = constants.trunk_table(mesh)
        owner = owners.setdefault(table, mesh)
        if owner != mesh and mesh in present:
            message = f"its routing table {table} is also that of {mesh_path(owner)}"
            problems.add(mesh_path(mesh), message, "give it another name: the table follows from that")


def _check_interfaces(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Check that no two meshes need one interface name on a node.

    The access interface of one mesh may clash with that of another, or with another's uplink or trunk.
    """
    owners: dict[str, MeshPolicy] = {}
    read = [mesh for mesh in meshes if not problems.has_problem_at(f"{mesh_path(mesh.name)}:interface")]
    # Meshes without ``interface`` come first: a mesh that chose a name is to choose another.
    for mesh in sorted(read, key=lambda m: m.interface != m.name):
        owner = owners.setdefault(mesh.interface, mesh)
        if owner is not mesh:
            message = f"{name_in_path(mesh.interface)} is also the interface of {mesh_path(owner.name)}"
            problems.add(interface_path(mesh), message, "choose another")
    for mesh in read:
        match = _DERIVED.fullmatch(mesh.interface)
        if match and match[1] in owners:
            other = name_in_path(owners[match[1]].name)
            message = f"mesh {other} may need an interface of this name for a relay"
            problems.add(interface_path(mesh), message, "choose a name without -u or -t and a number")
