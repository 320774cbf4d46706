"""What the values of a policy mean together: everything that contradicts something else is noted as a problem.

A check that builds on a field is skipped where that field could not be read, so that one mistake gives one problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address

from saltext_wgmesh.core import names
from saltext_wgmesh.core.endpoints import literal_of
from saltext_wgmesh.core.fields import Problems, name_in_path, shown, suggestion
from saltext_wgmesh.core.prefixes import Claim, Use, contains, host_network, overlaps
from saltext_wgmesh.core.rules import finder, has_wildcards
from saltext_wgmesh.core.types import MeshPolicy, NodeRule, Role, Site

_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*")
"""What wg-quick takes, less a leading ``-`` or ``.``."""
_TAKEN = {"all", "default", "lo"}
"""Names with a meaning of their own in /proc/sys/net/*/conf."""
_DERIVED = re.compile(r"(.+)-[ut][0-9]+")
_LONGEST_NAME = 64
"""Characters of a mesh's name, of which the names of files are made."""
_MOST_NUMBERS = 99
"""Relay numbers for which the name of an interface leaves room, at least."""


def mesh_path(mesh: str) -> str:
    """Where a mesh stands in the pillar."""
    return f"{names.POLICY_KEY}:{name_in_path(mesh)}"


def interface_path(mesh: MeshPolicy) -> str:
    """Where it is said what the interfaces of *mesh* are called: by ``interface``, or else by its name."""
    return mesh_path(mesh.name) if mesh.interface == mesh.name else f"{mesh_path(mesh.name)}:interface"


def check(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Every contradiction within and between *meshes* is in *problems* afterwards."""
    for mesh in meshes:
        _Mesh(mesh, mesh_path(mesh.name), finder(mesh.nodes), problems).check()
    _check_claims(meshes, problems)
    _check_ports(meshes, problems)
    _check_interfaces(meshes, problems)


@dataclass(frozen=True, slots=True)
class _Mesh:
    """The checks within one mesh."""

    mesh: MeshPolicy
    path: str
    find: Callable[[str], NodeRule | None]
    problems: Problems

    def check(self) -> None:
        """Every contradiction within the mesh is noted."""
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
        for link in self.mesh.links:
            self.check_link(link)

    def node_path(self, rule: NodeRule) -> str:
        """Where an entry of ``nodes`` stands in the pillar."""
        return f"{self.path}:nodes:{name_in_path(rule.pattern)}"

    def is_unread(self, node: str) -> bool:
        """Whether the entry that a node lacks may be there, but could not be read."""
        nodes = f"{self.path}:nodes"
        return self.problems.at(nodes) or self.problems.at(f"{nodes}:{name_in_path(node)}")

    def check_name(self) -> None:
        """Files can be named after the mesh, and interfaces after its ``interface``."""
        where, name = interface_path(self.mesh), self.mesh.interface
        if where != self.path and not (_INTERFACE.fullmatch(self.mesh.name) and len(self.mesh.name) <= _LONGEST_NAME):
            what = f"{shown(self.mesh.name)} can't be the name of a mesh"
            self.problems.add(self.path, what, f"use at most {_LONGEST_NAME} letters, digits and . _ = + - as in wg0")
        if self.problems.at(f"{self.path}:interface"):
            return
        if not _INTERFACE.fullmatch(name) or name in _TAKEN:
            what = f"{shown(name)} can't be the name of a network interface"
            self.problems.add(where, what, "use letters, digits and . _ = + - as in wg0")
        relays = relay_count(self.mesh)
        room = names.IFNAMSIZ - (len(names.trunk_name("", max(relays, _MOST_NUMBERS))) if relays else 0)
        if len(name) > room:
            why = ", to leave room for the numbers of relays" if relays else ""
            what = f"{shown(name)} is too long for the name of a network interface"
            self.problems.add(where, what, f"use at most {room} characters{why}")

    def check_members(self) -> None:
        """There are nodes, and two that only open connections have someone to meet at."""
        if not self.mesh.nodes and not self.problems.below(f"{self.path}:nodes"):
            self.problems.add(f"{self.path}:nodes", "is missing or empty", "name the nodes: minion ids or globs")
        behind_nat = sum(2 if has_wildcards(rule.pattern) else 1 for rule in self.mesh.nodes if rule.nat)
        unread = any(self.problems.at(f"{self.node_path(rule)}:role") for rule in self.mesh.nodes)
        if behind_nat >= 2 and not relay_count(self.mesh) and not unread:
            do = "give a node that others can reach role: relay and an endpoint"
            self.problems.add(self.path, "two nodes behind NAT need a relay, and there is none", do)

    def check_pattern(self, rule: NodeRule) -> None:
        """An entry counts for its node, and what only one node can have stands on no glob."""
        path = self.node_path(rule)
        if not has_wildcards(rule.pattern):
            first = self.find(rule.pattern)
            if first and first is not rule:
                what = f"never counts, since {shown(first.pattern)} stands before it and matches too"
                self.problems.add(path, what, "move it up")
            return
        do = "write an entry for the one node, before the glob"
        if rule.addresses:
            self.problems.add(f"{path}:address", "an address on a glob would be several nodes' address", do)
        if rule.endpoint:
            self.problems.add(f"{path}:endpoint", "an endpoint on a glob would be several nodes' endpoint", do)
        if rule.role is Role.RELAY:
            self.problems.add(f"{path}:role", "a relay on a glob can have no endpoint", do)

    def check_role(self, rule: NodeRule) -> None:
        """Relays can be reached, no endpoint is called unreachable, and the site exists."""
        path = self.node_path(rule)
        is_relay = rule.role is Role.RELAY
        if is_relay and rule.nat:
            do = "take nat away if others can reach it at its endpoint, else choose another relay"
            self.problems.add(f"{path}:nat", "a relay can't be behind NAT", do)
        elif rule.nat and rule.endpoint:
            do = "take nat away if others can reach it at its endpoint, else take the endpoint away"
            self.problems.add(f"{path}:nat", "a node behind NAT has no endpoint that others can reach", do)
        unread = self.problems.at(f"{path}:endpoint")
        if is_relay and not rule.endpoint and not unread and not has_wildcards(rule.pattern):
            do = "write the host or host:port at which other nodes reach it"
            self.problems.add(f"{path}:endpoint", "a relay needs an endpoint", do)
        if rule.site is not None and rule.site not in self.mesh.sites:
            where = f"{self.path}:sites:{name_in_path(rule.site)}"
            if not self.problems.at(where) and not self.problems.at(f"{self.path}:sites"):
                do = suggestion(rule.site, self.mesh.sites, "the sites are")
                self.problems.add(f"{path}:site", f"there is no site {shown(rule.site)}", do)

    def check_addresses(self, rule: NodeRule) -> None:
        """Explicit addresses are in the mesh's networks, and hosts can have them."""
        where = f"{self.node_path(rule)}:address"
        for host in rule.addresses:
            home = next((n for n in self.mesh.networks if contains(n, host_network(host))), None)
            if home is None and not self.problems.at(f"{self.path}:network"):
                wanted = " and ".join(str(n) for n in self.mesh.networks)
                self.problems.add(where, f"{host} is outside the mesh's network {wanted}", "choose one inside")
            if isinstance(home, IPv4Network) and home.prefixlen < 31:
                ends = {home.network_address: "network", home.broadcast_address: "broadcast"}
                if host in ends:
                    what = f"{host} is the {ends[host]} address of {home}"  # type: ignore[index]
                    self.problems.add(where, what, "choose another")

    def check_unique(self, key: str, values: Callable[[NodeRule], Iterable[object]]) -> None:
        """No two nodes have one address or one endpoint."""
        owners: dict[object, NodeRule] = {}
        for rule in self.mesh.nodes:
            for value in values(rule):
                owner = owners.setdefault(value, rule)
                if owner is not rule:
                    what = f"{value} is also the {key} of node {name_in_path(owner.pattern)}"
                    self.problems.add(f"{self.node_path(rule)}:{key}", what, "change one of them")

    def check_relays(self, site: Site) -> None:
        """The relays that a site names exist, each by an entry of its own."""
        where = f"{self.path}:sites:{name_in_path(site.name)}:relays"
        for relay in site.relays:
            rule = self.find(relay)
            if rule is None:
                if not self.is_unread(relay):
                    relays = (r.pattern for r in self.mesh.nodes if r.role is Role.RELAY)
                    do = suggestion(relay, relays, "the relays are")
                    self.problems.add(where, f"no entry of nodes matches {shown(relay)}", do)
            elif has_wildcards(rule.pattern):
                what = f"{shown(relay)} has no entry of its own, only the glob {shown(rule.pattern)} matches it"
                self.problems.add(where, what, "write one with role: relay and an endpoint, before the glob")
            elif rule.role is not Role.RELAY and not self.problems.at(f"{self.node_path(rule)}:role"):
                do = f"give {name_in_path(relay)} role: relay and an endpoint, or name another"
                self.problems.add(where, f"{shown(relay)} is not a relay", do)

    def check_blocks(self) -> None:
        """The sites' blocks are parts of the mesh's networks, and apart from each other."""
        claims = []
        for site in self.mesh.sites.values():
            where = f"{self.path}:sites:{name_in_path(site.name)}:network"
            for block in site.networks:
                claims.append(Claim(prefix=block, use=Use.BLOCK, mesh=site.name, path=where))
                inside = any(contains(network, block) for network in self.mesh.networks)
                if not inside and not self.problems.at(f"{self.path}:network"):
                    wanted = " and ".join(str(n) for n in self.mesh.networks)
                    self.problems.add(where, f"{block} is outside the mesh's network {wanted}", "choose a part of it")
        for wider, narrower in overlaps(claims):
            what = f"{narrower.prefix} overlaps {wider.prefix} of {wider.path}"
            self.problems.add(narrower.path, what, "choose blocks that are apart")

    def check_link(self, link: tuple[str, str]) -> None:
        """Both ends are members, two of them, and one can be reached by the other."""
        where = f"{self.path}:links"
        rules = [self.find(end) for end in link]
        for end, rule in zip(link, rules, strict=True):
            if rule is None and not self.is_unread(end):
                do = suggestion(end, (r.pattern for r in self.mesh.nodes), "the entries are")
                self.problems.add(where, f"no entry of nodes matches {shown(end)}", do)
        if link[0] == link[1]:
            self.problems.add(where, f"{shown(link[0])} is linked with itself", "name two nodes")
        elif all(rule and rule.nat for rule in rules):
            what = f"{shown(link[0])} and {shown(link[1])} are both behind NAT, so neither can reach the other"
            self.problems.add(where, what, "take the link away: relays carry their packets")


def relay_count(mesh: MeshPolicy) -> int:
    """How many relays the policy names."""
    return sum(rule.role is Role.RELAY for rule in mesh.nodes)


# --- between meshes ------------------------------------------------------------------------------------


def _check_claims(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Networks of meshes and subnets behind nodes are apart, and no endpoint is reached through its own mesh."""
    for wider, narrower in overlaps(_claims(meshes)):
        if narrower.use is Use.ENDPOINT:
            if wider.use is Use.NETWORK or (wider.use is Use.SUBNET and wider.mesh == narrower.mesh):
                what = f"{narrower.prefix.network_address} is inside {wider.prefix} of {wider.path}"
                do = "write its address in the underlay, the network that carries the mesh"
                problems.add(narrower.path, what, do)
            continue
        # Several gateways for one subnet: they take its traffic in the order of the rules.
        if narrower.use is wider.use is Use.SUBNET and (narrower.mesh, narrower.prefix) == (wider.mesh, wider.prefix):
            continue
        subnet_is_wider = wider.use is Use.SUBNET and narrower.use is Use.NETWORK
        blamed, other = (wider, narrower) if subnet_is_wider else (narrower, wider)
        what = f"{blamed.prefix} overlaps {other.prefix} of {other.path}"
        problems.add(blamed.path, what, "choose prefixes that are apart")


def _claims(meshes: Sequence[MeshPolicy]) -> Iterable[Claim]:
    for mesh in meshes:
        path = mesh_path(mesh.name)
        for network in mesh.networks:
            yield Claim(prefix=network, use=Use.NETWORK, mesh=mesh.name, path=f"{path}:network")
        for rule in mesh.nodes:
            node = f"{path}:nodes:{name_in_path(rule.pattern)}"
            for subnet in rule.routes:
                yield Claim(prefix=subnet, use=Use.SUBNET, mesh=mesh.name, path=f"{node}:routes")
            literal = literal_of(rule.endpoint) if rule.endpoint else None
            if literal:
                host = host_network(ip_address(literal))
                yield Claim(prefix=host, use=Use.ENDPOINT, mesh=mesh.name, path=f"{node}:endpoint")


def _last_port(mesh: MeshPolicy) -> int:
    """The highest UDP port that a node of the mesh may listen on: trunks exist between two relays or more."""
    relays = relay_count(mesh)
    return names.trunk_port(mesh.listen_port, relays) if relays >= 2 else mesh.listen_port


def _check_ports(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """Each mesh has UDP ports of its own, since a node may be in all of them."""
    for place, mesh in enumerate(meshes):
        where = f"{mesh_path(mesh.name)}:listen_port"
        if _last_port(mesh) > 65535:
            what = f"its relays would need ports {mesh.listen_port} to {_last_port(mesh)}"
            problems.add(where, what, f"choose at most {65535 - relay_count(mesh)}")
        for other in meshes[:place]:
            if mesh.listen_port <= _last_port(other) and other.listen_port <= _last_port(mesh):
                ports = f"UDP ports {_ports(mesh)} overlap {_ports(other)} of {mesh_path(other.name)}"
                problems.add(where, ports, "choose ports that are apart: one, and one more a relay")


def _ports(mesh: MeshPolicy) -> str:
    last = _last_port(mesh)
    return str(last) if last == mesh.listen_port else f"{mesh.listen_port}-{last}"


def _check_interfaces(meshes: Sequence[MeshPolicy], problems: Problems) -> None:
    """No two meshes have interfaces of one name on a node: neither their access interfaces, nor one's and an uplink or
    trunk of the other."""
    owners: dict[str, MeshPolicy] = {}
    read = [mesh for mesh in meshes if not problems.at(f"{mesh_path(mesh.name)}:interface")]
    # Who says nothing has its own name; it is the others who chose.
    for mesh in sorted(read, key=lambda m: m.interface != m.name):
        owner = owners.setdefault(mesh.interface, mesh)
        if owner is not mesh:
            what = f"{name_in_path(mesh.interface)} is also the interface of {mesh_path(owner.name)}"
            problems.add(interface_path(mesh), what, "choose another")
    for mesh in read:
        match = _DERIVED.fullmatch(mesh.interface)
        if match and match[1] in owners:
            other = name_in_path(owners[match[1]].name)
            what = f"mesh {other} may need an interface of this name for a relay"
            problems.add(interface_path(mesh), what, "choose a name without -u or -t and a number")
