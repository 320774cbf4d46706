"""The pillar is parsed into a policy, or refused with the exact words of each problem."""

from __future__ import annotations

import contextlib
import copy
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PolicyError
from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.policy import Bfd, Endpoint, MeshPolicy, NodeRule, Role, Topology

GOOD = """
wg0:
  network: [10.100.0.0/16, fd00:64::/64]
  sites:
    fra: {relays: [r1, r2]}
    nyc:
  nodes:
    r1: {role: relay, site: fra, endpoint: 203.0.113.10, address: 10.100.0.1}
    r2: {role: relay, site: fra, endpoint: relay.example.com}
    db1: {site: nyc, routes: [192.168.7.0/24]}
    'web*': {site: fra, nat: true}
"""


def good() -> dict[str, Any]:
    """Return a policy without a fault, for a test to damage."""
    raw: dict[str, Any] = yaml.safe_load(GOOD)
    return raw


def problems(raw: object) -> list[str]:
    """Return the problems of a policy as a user reads them."""
    with pytest.raises(PolicyError) as caught:
        policy.parse_policy(raw)
    return [str(problem) for problem in caught.value.problems]


def damaged(path: str, value: object) -> dict[str, Any]:
    """Return the good policy with *value* at *path*, as in ``wg0/nodes/r1/role``."""
    raw = good()
    *steps, last = path.split("/")
    parent = raw
    for step in steps:
        parent[step] = parent.get(step) or {}
        parent = parent[step]
    parent[last] = value
    return raw


# --- accepted values --------------------------------------------------------------------------------------


def test_policy_without_optional_keys_has_defaults() -> None:
    """Each key that the policy omits has its default value."""
    mesh = policy.parse_policy({"wg0": {"network": "10.100.0.0/16", "nodes": {"db1": None}}}).meshes["wg0"]
    assert mesh == MeshPolicy(
        name="wg0",
        interface="wg0",
        networks=(ip_network("10.100.0.0/16"),),
        listen_port=51820,
        topology=Topology.PARTIAL,
        mtu=1420,
        keepalive=25,
        sites={},
        nodes=(NodeRule(pattern="db1", role=Role.LEAF, site=None, endpoint=None, addresses=(), nat=False, routes=()),),
        links=(),
    )


def test_policy_with_every_key_is_read() -> None:
    """Each key of mesh, site and node is read into the field of its name."""
    raw = yaml.safe_load("""
    wg7:
      interface: office0
      network: [fd00:64::/64, 10.100.0.0/16]
      listen_port: 4000
      topology: hub
      mtu: 1300
      keepalive: 0
      bfd: {interval: 300}
      sites: {fra: {relays: r1, direct: false, network: 10.100.4.0/22}}
      nodes:
        r1: {role: relay, site: fra, endpoint: 'Relay.Example.COM:99', address: ['fd00:64::0001', 10.100.4.9]}
        db1: {nat: true, routes: 192.168.7.0/24}
      links: [[r1, db1]]
    """)
    mesh = policy.parse_policy(raw).meshes["wg7"]
    assert (mesh.name, mesh.interface) == ("wg7", "office0")
    assert (mesh.listen_port, mesh.topology, mesh.mtu, mesh.keepalive) == (4000, Topology.HUB, 1300, 0)
    assert mesh.bfd == Bfd(interval=300, multiplier=3)
    assert mesh.networks == (ip_network("10.100.0.0/16"), ip_network("fd00:64::/64"))
    site = mesh.sites["fra"]
    assert (site.name, site.relays, site.direct, site.networks) == (
        "fra",
        ("r1",),
        False,
        (ip_network("10.100.4.0/22"),),
    )
    r1, db1 = mesh.nodes
    assert (r1.role, r1.site, r1.endpoint) == (Role.RELAY, "fra", Endpoint(host="relay.example.com", port=99))
    assert r1.addresses == (ip_address("10.100.4.9"), ip_address("fd00:64::1"))
    assert (db1.nat, db1.routes) == (True, (ip_network("192.168.7.0/24"),))
    assert mesh.links == (("db1", "r1"),)


def test_reserved_range_in_each_form_is_read() -> None:
    """A range is an address, a prefix, or a first and a last address; a single range needs no list."""
    raw = {
        "wg0": {
            "network": ["10.7.0.0/16", "fd00::/64"],
            "reserved": ["10.7.0.1", "10.7.1.0/24", "10.7.2.5-10.7.2.9", "fd00::1 - fd00::f", "fd00::100/120"],
            "sites": {"fra": {"network": "10.7.8.0/24", "reserved": "10.7.8.1"}},
            "nodes": {"*": None},
        }
    }
    mesh = policy.parse_policy(raw).meshes["wg0"]
    assert [str(r) for r in mesh.reserved] == [
        "10.7.0.1",
        "10.7.1.0/24",
        "10.7.2.5-10.7.2.9",
        "fd00::1-fd00::f",
        "fd00::100/120",
    ]
    assert [str(r) for r in mesh.sites["fra"].reserved] == ["10.7.8.1"]


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("203.0.113.10", "203.0.113.10", 51820),
        ("203.0.113.10:1", "203.0.113.10", 1),
        ("relay", "relay", 51820),
        ("A-1.Example.com:65533", "a-1.example.com", 65533),
        ("1and1.example", "1and1.example", 51820),
        ("2001:DB8::0:1", "2001:db8::1", 51820),
        ("2a00::1", "2a00::1", 51820),
        (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61]), 51820),
        ("[2001:db8::1]", "2001:db8::1", 51820),
        ("a_b.example", "a_b.example", 51820),
        ("_wg._udp.Example.com.:7", "_wg._udp.example.com.", 7),
        ("relay.", "relay.", 51820),
        ("relay1.localhost.example", "relay1.localhost.example", 51820),
        ("0x7f.example", "0x7f.example", 51820),
        ("M\u00dcnchen.example.:7", "xn--mnchen-3ya.example.", 7),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example", 51820),
        ("relay\u3002example", "relay.example", 51820),
        ("\uff12\uff10\uff13.0.113.10", "203.0.113.10", 51820),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_endpoint_in_each_form_is_read(written: str, host: str, port: int) -> None:
    """An endpoint has one of four forms; without a port it has that of the mesh."""
    mesh = policy.parse_policy(damaged("wg0/nodes/r1/endpoint", written)).meshes["wg0"]
    assert mesh.nodes[0].endpoint == Endpoint(host=host, port=port)


@pytest.mark.parametrize(
    "written",
    [
        "host\n",
        "a b",
        "a;reboot",
        "$(reboot)",
        "`id`",
        "a|b",
        "a&b",
        "a>b",
        "'a'",
        "../a",
        "-a",
        "a-",
        "a..b",
        ".",
        "",
        "stra\u00dfe.example",
        "\u00e4..example",
        "\u00e4" * 60 + ".example",
        "a_.-b",
        "..",
        "a..",
        "a" * 64,
        ".".join(["a" * 63] * 3 + ["b" * 62]),
        "10.0.0.300",
        "10.0.0",
        "10.0.0.1/24",
        "a:0",
        "a:65536",
        "a:",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:١",
        "a:80\n",
        "[203.0.113.1]:80",
        "[2001:db8::1",
        "2001:db8::1]:80",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[2001:db8::1%eth0\n]:80",
        "fe80::1%eth0",
        "::ffff:203.0.113.1",
        "0.0.0.0",
        "127.0.0.1",
        "127.0.0.1.",
        "203.0.113.10.",
        "127.1",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0.0.0x1",
        "0x7f000001.",
        "017700000001",
        "2130706433",
        "0",
        "0x",
        "localhost",
        "LocalHost.",
        "a.localhost",
        "localhost.localdomain",
        "localhost6",
        "ip6-loopback",
        "\uff4cocalhost",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "0.1.2.3",
        "255.255.255.255",
        "::127.0.0.1",
        "[::ffff:127.0.0.1]:80",
        "[::]:80",
        "::1",
        "ff02::1",
        "fe80::1",
        "١٢٧.1.1.1",
    ],
)
def test_endpoint_that_could_harm_is_refused(written: str) -> None:
    """Only addresses that other nodes can reach and names that their resolvers take are accepted, with a decimal port.

    No spelling of the host itself is one, as the C library or an encoding reads it.
    """
    found = problems(damaged("wg0/nodes/r1/endpoint", written))
    assert len(found) == 1
    assert found[0].startswith("wgmesh:wg0:nodes:r1:endpoint: ")
    assert "\n" not in found[0]


# --- refused values, word by word ---------------------------------------------------------------------

BAD = yaml.safe_load((Path(__file__).parents[2] / "golden" / "bad-policies.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", BAD)
def test_bad_policy_is_refused_in_these_words(case: str) -> None:
    """One mistake gives these problems and no others, each with its path and its remedy."""
    assert problems(damaged(BAD[case]["at"], BAD[case]["value"])) == BAD[case]["problems"]


def test_number_too_long_to_print_is_not_printed() -> None:
    """Python refuses to print such numbers, so the message describes them."""
    assert problems(damaged("wg0/mtu", 10**5000)) == [
        "wgmesh:wg0:mtu: a very long number is out of range; choose a number from 1280 to 9000"
    ]


def test_long_value_is_shortened_in_messages() -> None:
    """A message repeats at most 60 characters of a value, in the path as well."""
    cut = "'" + "n" * 56 + "..."
    assert problems(damaged("wg0/nodes/" + "n" * 1000, {})) == [
        f"wgmesh:wg0:nodes:{cut}: {cut} is neither a minion id nor a glob; "
        "use letters, digits and . _ @ : + = ~ - and the wildcards * ? [..] only"
    ]


@pytest.mark.parametrize("nothing", [None, {}], ids=repr)
def test_empty_policy_is_an_error(nothing: object) -> None:
    """A pillar that fails to render must not remove a running mesh."""
    what = "give the master's own id ('salt-run config.get id') this pillar key, with a mesh below it"
    assert problems(nothing) == [f"wgmesh: has no mesh; {what}"]


def test_policy_without_mesh_name_is_one_error() -> None:
    """The likely mistake gives one problem, not one for each of its keys."""
    (problem,) = problems({"network": "10.0.0.0/16", "nodes": {"a": {}}, "mtu": 1400})
    assert problem.startswith("wgmesh: has network and nodes, but no mesh; write the name of a mesh between them")


def test_all_problems_are_reported_at_once() -> None:
    """Values that can't be read and values that contradict each other are listed in one error."""
    raw = damaged("wg0/mtu", "big")
    raw["wg0"]["nodes"]["db1"]["site"] = "rome"
    raw["wg0"]["nodes"]["r2"]["endpoint"] = None
    raw["wg1"] = {"network": "10.9.0.0/16", "nodes": {"a": None}}
    with pytest.raises(PolicyError) as caught:
        policy.parse_policy(raw)
    assert str(caught.value) == "\n".join(
        [
            "the policy has errors (4), nothing was changed:",
            "  - wgmesh:wg0:mtu: 'big' is not a whole number; write a number from 1280 to 9000, without quotes",
            "  - wgmesh:wg0:nodes:db1:site: there is no site 'rome'; the sites are: fra, nyc",
            "  - wgmesh:wg0:nodes:r2:endpoint: a relay needs an endpoint; "
            "write the host or host:port at which other nodes reach it",
            "  - wgmesh:wg1:listen_port: UDP ports 51820 overlap 51820-51822 of wgmesh:wg0; "
            "choose ports that are apart: one, and one more a relay",
        ]
    )


# --- unusual values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("wg0/nodes/gw", {"routes": ["192.168.7.0/24"]}),
        ("wg0/nodes/db1/address", "10.100.1.255"),
        ("wg0/nodes/db1/address", "fd00:64::"),
        ("wg0/links", [["db1", "web7"], ["web7", "db1"]]),
        ("wg0/nodes/db1/routes", ["192.168.7.0/24", "192.168.7.0/24"]),
        ("wg0/nodes/db1/endpoint", "203.0.113.10:4000"),
        ("wg0/listen_port", 65533),
        ("wg0/sites/nyc", {"network": ["10.100.4.0/22", "fd00:64::/80"], "relays": []}),
        ("wg1", {"network": "10.9.0.0/16", "listen_port": 51823, "nodes": {"a": {"nat": True}}}),
        ("wg1", {"network": "10.9.0.0/31", "listen_port": 1, "nodes": {"a": {"address": "10.9.0.0"}}}),
        ("wg0/interface", "wg0"),
        (
            "the-office-in-frankfurt",
            {"interface": "fra0", "network": "10.9.0.0/16", "listen_port": 1, "nodes": {"*": {}}},
        ),
        ("wg1", {"interface": "wg0u1", "network": "10.9.0.0/16", "listen_port": 1, "nodes": {"*": {}}}),
        ("fifteencharacte", {"network": "10.9.0.0/16", "listen_port": 1, "mtu": 576, "nodes": {"*": {}}}),
    ],
    ids=repr,
)
def test_unusual_but_valid_policy_is_accepted(path: str, value: object) -> None:
    """Gateways in order, unusual addresses, repeated links and adjacent ports are accepted."""
    policy.parse_policy(damaged(path, value))


FIRST = {"network": "10.8.0.0/16", "listen_port": 50000, "nodes": {"a": None}}
SECOND = {"network": "10.9.0.0/16", "listen_port": 60000, "nodes": {"a": None}}


@pytest.mark.parametrize(
    ("interfaces", "expected"),
    [
        # A name that another mesh has given up is free.
        ({"wg0": "office0", "wg1": "wg0"}, []),
        ({"wg0": "office0", "wg0-u1": "wg0-u1"}, []),
        (
            {"wg0": "wg1", "wg1": "wg1"},
            ["wgmesh:wg0:interface: wg1 is also the interface of wgmesh:wg1; choose another"],
        ),
        ({"a": "x", "b": "x"}, ["wgmesh:b:interface: x is also the interface of wgmesh:a; choose another"]),
        (
            {"wg0": "office0", "office0-t1": "office0-t1"},
            [
                "wgmesh:office0-t1: mesh wg0 may need an interface of this name for a relay; "
                "choose a name without -u or -t and a number"
            ],
        ),
    ],
)
def test_meshes_with_common_interface_name_are_refused(interfaces: dict[str, str], expected: list[str]) -> None:
    """The rule holds for names of meshes and for ``interface`` alike."""
    one, other = ({**each, "interface": name} for each, name in zip((FIRST, SECOND), interfaces.values(), strict=True))
    raw = dict(zip(interfaces, (one, other), strict=True))
    if expected:
        assert problems(raw) == expected
    else:
        policy.parse_policy(raw)


def test_name_of_255_characters_is_accepted() -> None:
    """The limit holds for minion ids, globs and sites; a name of 256 characters is refused."""
    policy.parse_policy(damaged("wg0/nodes/" + "n" * 255, {}))
    policy.parse_policy(damaged("wg0/sites/" + "s" * 255, {}))
    assert len(problems(damaged("wg0/nodes/" + "n" * 256, {}))) == 1
    assert len(problems(damaged("wg0/sites/" + "s" * 256, {}))) == 1


# --- any input -----------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.binary(max_size=8)
    | st.text(max_size=20)
    | st.sampled_from(["10.100.0.0/16", "10.100.0.1", "r1", "web*", "relay", "x\ny", "\x1b[2J", "z" * 500, 10**4000])
)
KEYS = st.sampled_from([*policy.MESH_KEYS, *policy.SITE_KEYS, *policy.NODE_KEYS, "wg0", "r1"]) | SCALARS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
PATHS = st.sampled_from(
    [
        "wg0",
        "wg0/network",
        "wg0/listen_port",
        "wg0/topology",
        "wg0/sites",
        "wg0/sites/fra",
        "wg0/sites/fra/relays",
        "wg0/nodes",
        "wg0/nodes/r1",
        "wg0/nodes/r1/endpoint",
        "wg0/nodes/db1/routes",
        "wg0/links",
        "wg0/mtu",
        "new",
    ]
)


@settings(max_examples=300, deadline=None)
@given(path=PATHS, value=ANYTHING)
def test_any_value_is_accepted_or_refused_printably(path: str, value: object) -> None:
    """Any value in the pillar gives a Policy or a PolicyError, and a terminal can display the error safely."""
    raw = damaged(path, value)
    before = copy.deepcopy(raw)
    try:
        policy.parse_policy(raw)
    except PolicyError as error:
        for problem in error.problems:
            assert str(problem).isprintable()
            assert len(problem.message) < 250
    assert repr(raw) == repr(before)


@settings(max_examples=100, deadline=None)
@given(raw=ANYTHING)
def test_any_pillar_is_accepted_or_refused(raw: object) -> None:
    """The value of the pillar key itself may be anything too."""
    with contextlib.suppress(PolicyError):
        policy.parse_policy(raw)
