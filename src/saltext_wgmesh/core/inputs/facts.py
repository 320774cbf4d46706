"""The facts of one node, read from the plain values in the mine.

Facts are claims: any value is allowed in the mine, and the reader accepts only well-formed ones. ``trusted_facts``
turns the error of one node into its rejection. ``facts_format`` writes the same values.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TypeVar

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs.converters import Converter, InvalidValue, flag, kind, name_in_path, quoted, text
from saltext_wgmesh.core.inputs.facts_format import MAX_ADDRESSES, MAX_NETWORKS
from saltext_wgmesh.core.inputs.prefixes import address, embedded_ipv4, is_local, network, special_host_range
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.policy import Address
from saltext_wgmesh.core.model.untrusted import Refused

T = TypeVar("T")

_MAX_FINGERPRINT = 200
"""Characters of the fingerprint of a Salt key."""


def facts_from_dict(node: str, raw: object) -> Facts:
    """Return the facts of *node* that ``facts_format.facts_as_dict`` wrote, in canonical form.

    Unknown keys are ignored, so that a later version may add some. The node's name comes from the mine's bank, which
    Salt guards, and never from the facts.

    Raises InvalidValue for anything else.
    """
    if isinstance(raw, Refused):
        raise InvalidValue(f"its entry in the mine {raw.reason}", _remedy(node))
    if not isinstance(raw, Mapping):
        raise InvalidValue(f"its facts are {kind(raw)}, not a mapping", _remedy(node))
    schema = raw.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema != constants.FACTS_SCHEMA:
        raise InvalidValue(
            f"its facts are of schema {quoted(schema)}, not {constants.FACTS_SCHEMA}",
            "install the same version of saltext-wgmesh on the master and on this minion",
        )
    try:
        public_key = _field(raw, "public_key", _public_key)
        return Facts(
            node=node,
            public_key=public_key,
            salt_key=_field(raw, "salt_key", _fingerprint),
            underlay=_field(raw, "underlay", _underlay),
            networks=_field(raw, "networks", _networks),
            lans=_field(raw, "lans", _networks) if raw.get("lans") is not None else None,
            ipv6=_field(raw, "ipv6", flag),
            next_key=_field(raw, "next_key", _next_key(public_key)),
        )
    except InvalidValue as error:
        raise InvalidValue(error.message, _remedy(node)) from None


def _remedy(node: str) -> str:
    return f"look at `salt {name_in_path(node)} wgmesh.facts`, and reinstall saltext-wgmesh there"


def _field(raw: Mapping[str, object], key: str, convert: Converter[T]) -> T:
    try:
        return convert(raw.get(key))
    except InvalidValue as error:
        raise InvalidValue(f"in its facts, {key} can't be read: {error.message}", error.remedy) from None


def _public_key(value: object) -> str:
    word = text(value)
    try:
        raw = base64.b64decode(word, validate=True) if len(word) == 44 else b""
    except (binascii.Error, ValueError):
        raw = b""
    # Two texts may decode to the same bytes: only the canonical one is a key, so that keys can be compared as text.
    if len(raw) != constants.KEY_BYTES or base64.b64encode(raw).decode() != word:
        raise InvalidValue(f"{quoted(word)} is not the base64 of {constants.KEY_BYTES} bytes", "make a new key")
    if not any(raw):
        raise InvalidValue("it is all zero", "make a new key")
    return word


def _next_key(public_key: str) -> Converter[str | None]:
    """Return a converter to the key that follows *public_key*; None: there is no next key."""

    def convert(value: object) -> str | None:
        word = None if value is None else _public_key(value)
        if word == public_key:
            raise InvalidValue("it is the node's present key", "make another key")
        return word

    return convert


def _fingerprint(value: object) -> str:
    word = text(value)
    if not 0 < len(word) <= _MAX_FINGERPRINT or not word.isprintable():
        raise InvalidValue(f"{quoted(word)} is not a fingerprint", "")
    return word


def _items(value: object, maximum: int) -> list[object]:
    """Return the entries of a list of at most *maximum* entries."""
    if not isinstance(value, (list, tuple)):
        raise InvalidValue(f"it is {kind(value)}, not a list", "")
    if len(value) > maximum:
        raise InvalidValue(f"it has more than {maximum} entries", "")
    return list(value)


def _underlay(value: object) -> tuple[str, ...]:
    """Return each address once, in the node's order, without those that have no meaning for other nodes."""
    found = [address(item) for item in _items(value, MAX_ADDRESSES)]
    unspecified = next((a for a in found if a.is_unspecified), None)
    if unspecified:
        raise InvalidValue(f"{unspecified} is no host's address", "")
    return tuple(dict.fromkeys(str(a) for a in found if not (is_local(a) or _carries_special(a))))


def _carries_special(host: Address) -> bool:
    return any(special_host_range(each) for each in embedded_ipv4(host))


def _networks(value: object) -> tuple[str, ...]:
    """Return each prefix once, IPv4 before IPv6, in order, without those that have no meaning for other nodes."""
    found = {network(item) for item in _items(value, MAX_NETWORKS)}
    ordered = sorted(found, key=lambda n: (n.version, n.network_address, n.prefixlen))
    return tuple(str(n) for n in ordered if not is_local(n))
