"""No node gets an address of a ``reserved`` range automatically."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.inputs.prefixes import address_range
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import AddressRange, MeshPolicy, Site
from saltext_wgmesh.core.planning import addresses
from tests.unit.harness.worlds import leaf, mesh

BASE = {4: int(ip_address("10.7.0.0")), 6: int(ip_address("fd00::"))}


def spans(*written: str) -> tuple[AddressRange, ...]:
    return tuple(address_range(one) for one in written)


def assign(made: MeshPolicy, nodes: list[str]):
    """Return the addresses of *nodes*, each with the rule of its name or the glob ``*``, and the problems."""
    rules = {rule.pattern: rule for rule in made.nodes}
    return addresses.assign_addresses(made, {n: rules.get(n) or rules["*"] for n in nodes}, Allocations())


def is_reserved(made: MeshPolicy, address: str) -> bool:
    """Return whether a range of the mesh or of a site has the address, without the code under test."""
    own = ip_address(address)
    ranges = [*made.reserved, *(r for site in made.sites.values() for r in site.reserved)]
    return any(r.first.version == own.version and int(r.first) <= int(own) <= int(r.last) for r in ranges)


@st.composite
def ranges(draw: st.DrawFn, first: int = 0, size: int = 32) -> AddressRange:
    """A range within *size* addresses from *first* of 10.7.0.0 or fd00::, in any of the three spellings."""
    base = BASE[draw(st.sampled_from([4, 6]))] + first
    begin, end = sorted((draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))))
    length = draw(st.integers(27, 32))
    if draw(st.booleans()):
        family = 128 - 32 if base > BASE[4] + 2**16 else 0
        inside = ip_address(base + begin)
        return address_range(str(ip_network(f"{inside}/{length + family}", strict=False)))
    return address_range(f"{ip_address(base + begin)}-{ip_address(base + end)}")


@st.composite
def meshes(draw: st.DrawFn) -> MeshPolicy:
    """A mesh of 32 addresses a family with reserved ranges, of which the site fra has the first eight of IPv4."""
    block = ip_network("10.7.0.0/29")
    own = [r for r in draw(st.lists(ranges(0, 8), max_size=2)) if r.first.version == 4 and ip_address(r.last) in block]
    site = Site(name="fra", networks=(block,), reserved=tuple(own))
    reserved = tuple(draw(st.lists(ranges(), max_size=4)))
    return mesh(leaf("f*", "fra"), leaf("*"), network="10.7.0.0/27 fd00::/123", sites=(site,), reserved=reserved)


@settings(max_examples=150, deadline=None)
@given(made=meshes(), count=st.integers(1, 40))
def test_automatic_address_is_never_reserved(made: MeshPolicy, count: int) -> None:
    """No address of a reserved range is assigned automatically, and all others are, until the mesh is full."""
    rules = {f"n{i}": made.nodes[i % 3 > 0] for i in range(count)}
    found, problems = addresses.assign_addresses(made, rules, Allocations())
    assigned = [address for own in found.values() for address in own]
    assert not [address for address in assigned if is_reserved(made, address)]
    assert len(assigned) == len(set(assigned)) == 2 * count - len(problems)
    hosts = [str(host) for network in made.networks for host in network.hosts()]
    of_site = list(ip_network("10.7.0.0/29").hosts())
    left = {host for host in hosts if not is_reserved(made, host)} - set(assigned)
    short = {str(p.path).removeprefix("node ") for p in problems}
    for node in short:
        # A node of the site has its block alone; all others have the whole network.
        missing = {4, 6} - {ip_address(a).version for a in found[node]}
        for host in map(ip_address, left):
            at_site = rules[node].site == "fra" and host.version == 4
            assert host.version not in missing or (at_site and host not in of_site)


@settings(max_examples=80, deadline=None)
@given(made=meshes(), count=st.integers(1, 12))
def test_node_keeps_address_when_range_is_reserved(made: MeshPolicy, count: int) -> None:
    """A range that is reserved later renumbers no node; each node with an address in it is reported."""
    before = mesh(*made.nodes, network="10.7.0.0/27 fd00::/123", sites=tuple(Site(name=s) for s in made.sites))
    rules = {f"n{i}": made.nodes[1] for i in range(count)}
    first, _ = addresses.assign_addresses(before, rules, Allocations())
    later, problems = addresses.assign_addresses(made, rules, Allocations(addresses=first))
    assert (later, problems) == (first, [])
    reported = {p.path for p in addresses.reserved_in_use(made, later)}
    assert reported == {f"node {n}" for n, own in later.items() if any(is_reserved(made, a) for a in own)}


def test_explicit_address_may_be_reserved() -> None:
    """The operator assigns reserved addresses, so none is reported."""
    made = mesh(
        leaf("a", addresses=["10.7.0.3"]), leaf("*"), network="10.7.0.0/29", reserved=spans("10.7.0.1-10.7.0.5")
    )
    found, problems = assign(made, ["a", "b"])
    assert (found, problems) == ({"a": ("10.7.0.3",), "b": ("10.7.0.6",)}, [])
    assert addresses.reserved_in_use(made, found) == []


def test_full_mesh_names_reserved_ranges() -> None:
    """All addresses may be reserved; then a node without an explicit address gets none."""
    made = mesh(leaf("*"), network="10.7.0.0/29", reserved=spans("10.7.0.0/29"))
    found, problems = assign(made, ["a"])
    assert found == {"a": ()}
    assert [str(p) for p in problems] == [
        "node a: the network 10.7.0.0/29 has no free address left outside its reserved ranges; choose a wider one"
    ]


def test_range_of_one_site_is_closed_to_all() -> None:
    """A node of no site that gets an address of a block gets none of its reserved ones."""
    site = Site(name="fra", networks=(ip_network("10.7.0.0/29"),), reserved=spans("10.7.0.1-10.7.0.5"))
    made = mesh(leaf("*"), network="10.7.0.0/29", sites=(site,))
    assert assign(made, ["a"])[0] == {"a": ("10.7.0.6",)}


def test_reserving_keeps_hashed_addresses_elsewhere() -> None:
    """A reserved IPv4 range leaves the hashed IPv6 addresses of a fleet unchanged."""
    network = "10.7.0.0/24 fd00::/64"
    plain, _ = assign(mesh(leaf("*"), network=network), ["a", "b"])
    closed, _ = assign(mesh(leaf("*"), network=network, reserved=spans("10.7.0.0/25")), ["a", "b"])
    assert [own[1] for own in plain.values()] == [own[1] for own in closed.values()]
