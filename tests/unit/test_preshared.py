"""Preshared keys: how they are derived, and that nobody but their node can read them in its pillar."""

from __future__ import annotations

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import preshared, sealed
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.types import View
from tests.nodeviews import key, leaf

KEYS = st.binary(min_size=32, max_size=32)
PUBLIC = KEYS.map(lambda raw: base64.b64encode(raw).decode())
MESHES = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)


# --- derivation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "salt", "info", "okm"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "0b" * 22,
            "",
            "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_the_vectors_of_rfc_5869(secret: str, salt: str, info: str, okm: str) -> None:
    """Appendix A.1 and A.3: SHA-256, with salt and info and without, which is how our keys are made."""
    found = preshared.hkdf(bytes.fromhex(secret), bytes.fromhex(info), salt=bytes.fromhex(salt) or None, length=42)
    assert found.hex() == okm


def test_a_key_of_this_version_is_that_of_the_next() -> None:
    """What nodes hold must not change by an upgrade of the master. Written out with HMAC alone, as RFC 5869 has it."""
    one, other = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    info = b"saltext-wgmesh preshared key 1" + b"\0wg0\0" + b"\1" * 32 + b"\2" * 32
    expanded = base64.b64encode(hmac.digest(extracted, info + b"\1", "sha256")).decode()
    assert (
        preshared.derive(bytes(range(32)), "wg0", one, other)
        == expanded
        == "IrBn5stEaeu8LWxuzGoQrs01ZpXoKYODvd7k4vBDoUQ="
    )


@given(KEYS, MESHES, PUBLIC, PUBLIC)
def test_both_ends_have_the_same_key(secret: bytes, mesh: str, one: str, other: str) -> None:
    """32 bytes in base64, whichever end is named first."""
    made = preshared.derive(secret, mesh, one, other)
    assert made == preshared.derive(secret, mesh, other, one)
    assert len(base64.b64decode(made, validate=True)) == 32


@given(
    *(st.lists(values, min_size=2, max_size=2, unique=True) for values in (KEYS, MESHES)),
    st.lists(PUBLIC, min_size=3, max_size=3, unique=True),
)
def test_each_secret_mesh_and_pair_has_a_key_of_its_own(secrets: list, meshes: list, ends: list) -> None:
    """Whoever has one key has none of the others."""
    pairs = [(ends[0], ends[1]), (ends[0], ends[2]), (ends[1], ends[2])]
    made = {preshared.derive(s, m, *pair) for s in secrets for m in meshes for pair in pairs}
    assert len(made) == 2 * 2 * 3
    assert len({preshared.identifier(one) for one in made}) == len(made)


@given(PUBLIC)
def test_an_identifier_is_harmless(made: str) -> None:
    """As the name of a file, and to whoever reads it: nothing of the key is in it."""
    name = preshared.identifier(made)
    assert name is None or (preshared.is_identifier(name) and name not in made)


def test_no_key_has_no_identifier() -> None:
    """32 zero bytes are how WireGuard spells that there is none."""
    assert preshared.identifier(base64.b64encode(bytes(32)).decode()) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef\n", 7])
def test_a_view_that_names_no_identifier_is_refused(name: object) -> None:
    """It becomes the name of a file on the node."""
    raw = leaf().as_dict()
    raw["interfaces"][1]["peers"][0]["preshared"] = [name]
    with pytest.raises(ViewError, match=r"no identifier|not text"):
        View.from_dict(raw)


def test_a_view_keeps_its_identifiers() -> None:
    """There and back; and the digest is of them too."""
    raw = leaf().as_dict()
    raw["interfaces"][1]["peers"][0]["preshared"] = ["0123456789abcdef"]
    raw["keys"] = [key(5)]
    view = View.from_dict(raw)
    peer = view.interfaces[1].peers[0]
    assert preshared.between(view, key(5), peer, peer.public_key) == "0123456789abcdef"
    assert preshared.between(view, key(6), peer, peer.public_key) is None
    assert list(preshared.identifiers(view)) == ["0123456789abcdef"]
    assert view.as_dict() == raw
    assert view.digest() != leaf().digest()


# --- sealing -------------------------------------------------------------------------------------------


def public_key(private: bytes) -> str:
    point = X25519PrivateKey.from_private_bytes(private).public_key()
    return base64.b64encode(point.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=200), MESHES, KEYS, KEYS)
def test_the_reader_reads_what_was_sealed(text: str, mesh: str, reader: bytes, once: bytes) -> None:
    """Any text, and nothing of it stands in the box."""
    box = sealed.seal(text, mesh, public_key(reader), once)
    assert sealed.unseal(box, mesh, reader) == text
    assert not (len(text) > 8 and text.encode() in base64.b64decode(box))


@settings(max_examples=20, deadline=None)
@given(KEYS, KEYS, st.integers(min_value=0), st.integers(0, 7))
def test_nobody_else_reads_it(reader: bytes, other: bytes, place: int, bit: int) -> None:
    """Another key, another mesh and one bit changed anywhere are all refused, in the same words."""
    assume(public_key(reader) != public_key(other))
    box = sealed.seal("secret", "wg0", public_key(reader), bytes(range(32)))
    raw = bytearray(base64.b64decode(box))
    # The highest bit of a point counts for nothing (RFC 7748 section 5), but the key is made from it all the same.
    raw[place % len(raw)] ^= 1 << bit
    broken = base64.b64encode(raw).decode()
    for attempt in ((box, "wg0", other), (box, "wg1", reader), (broken, "wg0", reader), ("!", "wg0", reader)):
        with pytest.raises(ValueError, match=r"^it was not sealed to this key$") as caught:
            sealed.unseal(*attempt)
        assert caught.value.__cause__ is None


def test_a_key_that_is_no_point_is_refused() -> None:
    """A node may publish anything of 32 bytes: with zeros, everybody would know what is encrypted to it."""
    with pytest.raises(ValueError, match=r"."):
        sealed.seal("secret", "wg0", base64.b64encode(bytes(32)).decode(), bytes(range(32)))
