"""Facts of the mine are read, or rejected with the exact words of the reason."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.inputs import trusted_facts
from saltext_wgmesh.core.inputs.facts import facts_from_dict
from saltext_wgmesh.core.inputs.facts_format import facts_as_dict
from saltext_wgmesh.core.model.facts import Facts, Rejection
from tests.unit.harness.mine_facts import OTHER_SALT_KEY, SALT_KEY, facts_with_key, key, published


def test_facts_are_read_in_canonical_form() -> None:
    """Addresses keep the node's order, networks are sorted, each stands once and in canonical form."""
    raw = published(
        underlay=["203.0.113.7", "2001:DB8::0:7", "192.168.7.2", "203.0.113.7"],
        networks=["2001:db8::/64", "203.0.113.0/24", "192.168.7.0/24", "203.0.113.0/24"],
        ipv6=False,
    )
    found = trusted_facts.parse_facts({"n1": raw}, {"n1": SALT_KEY})
    assert found.rejected == ()
    assert dict(found.facts) == {
        "n1": Facts(
            node="n1",
            public_key=key(1),
            salt_key=SALT_KEY,
            underlay=("203.0.113.7", "2001:db8::7", "192.168.7.2"),
            networks=("192.168.7.0/24", "203.0.113.0/24", "2001:db8::/64"),
            ipv6=False,
        )
    }


def test_node_is_named_by_its_bank() -> None:
    """Facts that claim another node's name are the facts of the node in whose bank they are."""
    found = trusted_facts.parse_facts({"n1": published(node="n2", id="n2")}, {"n1": SALT_KEY, "n2": SALT_KEY})
    assert [f.node for f in found.facts.values()] == ["n1"]


def test_local_prefixes_and_unknown_keys_are_ignored() -> None:
    """Link-local, loopback and multicast entries are ignored, and so are keys of later versions."""
    raw = published(
        underlay=["127.0.0.1", "169.254.3.4", "fe80::1", "::1", "ff02::1", "203.0.113.7"],
        networks=["127.0.0.0/8", "169.254.0.0/16", "fe80::/64", "::1/128", "224.0.0.0/4", "203.0.113.0/24"],
        later={"a": [1]},
    )
    (found,) = trusted_facts.parse_facts({"n1": raw}, {"n1": SALT_KEY}).facts.values()
    assert (found.underlay, found.networks) == (("203.0.113.7",), ("203.0.113.0/24",))


def test_largest_allowed_facts_are_read() -> None:
    """Facts may have 1024 addresses, 4096 networks and a fingerprint of 200 characters."""
    raw = published(
        underlay=[f"10.1.{n // 256}.{n % 256}" for n in range(1024)],
        networks=[f"10.{n // 256}.{n % 256}.0/24" for n in range(4096)],
        salt_key="5" * 200,
    )
    found = trusted_facts.parse_facts({"n1": raw}, {"n1": "5" * 200}).facts["n1"]
    assert (len(found.underlay), len(found.networks)) == (1024, 4096)


def test_facts_from_dict_reverses_facts_as_dict() -> None:
    """Facts that the ledger has saved are read back unchanged."""
    own = facts_with_key("n1", 4, underlay=("203.0.113.7",), networks=("203.0.113.0/24",), ipv6=False)
    assert facts_as_dict(own) == {
        "schema": 1,
        "public_key": key(4),
        "salt_key": SALT_KEY,
        "underlay": ["203.0.113.7"],
        "networks": ["203.0.113.0/24"],
        "ipv6": False,
    }
    assert facts_from_dict("n1", facts_as_dict(own)) == own
    assert facts_from_dict("n1", facts_as_dict(own)).lans is None
    telling = facts_with_key("n1", 4, lans=("203.0.113.0/24",))
    assert facts_from_dict("n1", facts_as_dict(telling)) == telling
    rotating = facts_with_key("n1", 4, next_key=key(5))
    assert facts_as_dict(rotating)["next_key"] == key(5)
    assert facts_from_dict("n1", facts_as_dict(rotating)) == rotating
    with pytest.raises(ValueError, match="its facts are nothing, not a mapping"):
        facts_from_dict("n1", None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("AAAA", "'AAAA' is not the base64 of 32 bytes"),
        (key(0), "it is all zero"),
        (7, "was read as a number (7), not as text"),
        (key(1), "it is the node's present key"),
    ],
)
def test_bad_next_key_is_rejected(value: Any, message: str) -> None:
    """The next key must be a key, and differ from the current one."""
    (rejected,) = trusted_facts.parse_facts({"n1": published(next_key=value)}, {"n1": SALT_KEY}).rejected
    assert rejected.reason == f"in its facts, next_key can't be read: {message}"


SAME_VERSION = "install the same version of saltext-wgmesh on the master and on this minion"
LOOK = "look at `salt n1 wgmesh.facts`, and reinstall saltext-wgmesh there"
BAD: dict[str, tuple[Any, str, str]] = {
    "another schema": (published(schema=2), "its facts are of schema 2, not 1", SAME_VERSION),
    "schema true": (published(schema=True), "its facts are of schema true, not 1", SAME_VERSION),
    "no schema": ({}, "its facts are of schema nothing, not 1", SAME_VERSION),
    "text": ("x", "its facts are text, not a mapping", LOOK),
    "key of 31 bytes": (
        published(public_key=base64.b64encode(bytes(range(31))).decode()),
        "in its facts, public_key can't be read: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==' "
        "is not the base64 of 32 bytes",
        LOOK,
    ),
    "key of 33 bytes": (
        published(public_key="A" * 44),
        f"in its facts, public_key can't be read: '{'A' * 44}' is not the base64 of 32 bytes",
        LOOK,
    ),
    "key that is not canonical": (
        published(public_key="A" * 42 + "B="),
        f"in its facts, public_key can't be read: '{'A' * 42}B=' is not the base64 of 32 bytes",
        LOOK,
    ),
    "key with a newline": (
        published(public_key=key(1)[:43] + "\n"),
        f"in its facts, public_key can't be read: '{key(1)[:43]}\\n' is not the base64 of 32 bytes",
        LOOK,
    ),
    "key of zeros": (published(public_key=key(0)), "in its facts, public_key can't be read: it is all zero", LOOK),
    "key as bytes": (
        published(public_key=b"x"),
        "in its facts, public_key can't be read: was read as a value of type bytes, not as text",
        LOOK,
    ),
    "fingerprint missing": (
        published(salt_key=None),
        "in its facts, salt_key can't be read: is nothing, not text",
        LOOK,
    ),
    "fingerprint of another key": (
        published(salt_key=OTHER_SALT_KEY),
        "its facts were published under another Salt key than the one accepted now",
        "have it publish again: salt n1 state.apply wgmesh",
    ),
    "fingerprint empty": (
        published(salt_key=""),
        "in its facts, salt_key can't be read: '' is not a fingerprint",
        LOOK,
    ),
    "fingerprint too long": (
        published(salt_key="5" * 201),
        f"in its facts, salt_key can't be read: '{'5' * 56}... is not a fingerprint",
        LOOK,
    ),
    "fingerprint with a newline": (
        published(salt_key="5a\n"),
        "in its facts, salt_key can't be read: '5a\\n' is not a fingerprint",
        LOOK,
    ),
    "addresses no list": (
        published(underlay="203.0.113.7"),
        "in its facts, underlay can't be read: it is text, not a list",
        LOOK,
    ),
    "addresses too many": (
        published(underlay=[f"10.1.{n // 256}.{n % 256}" for n in range(1025)]),
        "in its facts, underlay can't be read: it has more than 1024 entries",
        LOOK,
    ),
    "no address": (
        published(underlay=["1.2.3.4;x"]),
        "in its facts, underlay can't be read: '1.2.3.4;x' is not an IP address",
        LOOK,
    ),
    "address with a zone": (
        published(underlay=["2001:db8::1%\n"]),
        "in its facts, underlay can't be read: '2001:db8::1%\\n' is not an IP address",
        LOOK,
    ),
    "unspecified address": (
        published(underlay=["::"]),
        "in its facts, underlay can't be read: :: is no host's address",
        LOOK,
    ),
    "networks too many": (
        published(networks=[f"10.{n // 256}.{n % 256}.0/24" for n in range(4097)]),
        "in its facts, networks can't be read: it has more than 4096 entries",
        LOOK,
    ),
    "network with host bits": (
        published(networks=["10.0.0.1/8"]),
        "in its facts, networks can't be read: '10.0.0.1/8' has host bits set",
        LOOK,
    ),
    "default route": (
        published(networks=["0.0.0.0/0"]),
        "in its facts, networks can't be read: '0.0.0.0/0' is the default route",
        LOOK,
    ),
    "ipv6 a number": (
        published(ipv6=1),
        "in its facts, ipv6 can't be read: 1 is a number, not a boolean",
        LOOK,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_facts_are_rejected_in_these_words(case: str) -> None:
    """The node is rejected with one reason and its remedy; the facts of other nodes are read."""
    raw, reason, remedy = BAD[case]
    accepted = {"n1": SALT_KEY, "n2": SALT_KEY}
    found = trusted_facts.parse_facts({"n1": raw, "n2": published()}, accepted)
    assert found.rejected == (Rejection(node="n1", reason=reason, remedy=remedy),)
    assert list(found.facts) == ["n2"]


def test_facts_of_unaccepted_node_are_rejected() -> None:
    """The mine of a minion outlives its Salt key; facts in it are not used."""
    found = trusted_facts.parse_facts({"n1": published()}, {})
    assert [str(r) for r in found.rejected] == [
        "n1: its Salt key is not accepted any more, but its facts are still in the mine; "
        "accept it again if the node is to stay: salt-key -a n1"
    ]
    assert dict(found.facts) == {}


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=50)
    | st.text(max_size=50)
    | st.sampled_from([10**4000, "\ud800", "\x1b[2J\n", "z" * 10_000, key(1), SALT_KEY, "10.0.0.0/8", "::/1"])
)
ANYTHING = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ODD, inner, max_size=4), max_leaves=20
)


@settings(max_examples=300, deadline=None)
@given(raw=ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(published(), ANYTHING)), changed=st.booleans())
def test_any_facts_are_read_or_rejected_printably(raw: Any, changed: bool) -> None:
    """Any value as a whole or in one field raises nothing, and the rejection can be printed."""
    content = published(**raw) if changed and isinstance(raw, dict) and all(k in published() for k in raw) else raw
    found = trusted_facts.parse_facts({"n1": content, "n2": published()}, {"n1": SALT_KEY, "n2": SALT_KEY})
    assert "n2" in found.facts
    assert {*found.facts, *(r.node for r in found.rejected)} == {"n1", "n2"}
    for rejection in found.rejected:
        assert str(rejection).isprintable()
        assert len(str(rejection)) < 400
