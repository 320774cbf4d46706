"""Sealed boxes: only the recipient can read one."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import sealed_box

KEYS = st.binary(min_size=32, max_size=32)
MESHES = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)


def public_key(private: bytes) -> str:
    point = X25519PrivateKey.from_private_bytes(private).public_key()
    return base64.b64encode(point.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=200), MESHES, KEYS, KEYS)
def test_open_sealed_returns_the_sealed_text(text: str, mesh: str, reader: bytes, once: bytes) -> None:
    """Any text, and nothing of it is in the box."""
    box = sealed_box.seal(text, mesh, public_key(reader), once)
    assert sealed_box.open_sealed(box, mesh, reader) == text
    assert not (len(text) > 8 and text.encode() in base64.b64decode(box))


@settings(max_examples=20, deadline=None)
@given(KEYS, KEYS, st.integers(min_value=0), st.integers(0, 7))
def test_open_sealed_other_key_context_or_bit_raises(reader: bytes, other: bytes, place: int, bit: int) -> None:
    """Another key, another mesh and one changed bit anywhere have the same message."""
    assume(public_key(reader) != public_key(other))
    box = sealed_box.seal("secret", "wg0", public_key(reader), bytes(range(32)))
    raw = bytearray(base64.b64decode(box))
    # The highest bit of a point counts for nothing (RFC 7748 section 5), but the key is made from it all the same.
    raw[place % len(raw)] ^= 1 << bit
    broken = base64.b64encode(raw).decode()
    for attempt in ((box, "wg0", other), (box, "wg1", reader), (broken, "wg0", reader), ("!", "wg0", reader)):
        with pytest.raises(ValueError, match=r"^it was not sealed to this key$") as caught:
            sealed_box.open_sealed(*attempt)
        assert caught.value.__cause__ is None


def test_seal_to_no_point_raises() -> None:
    """A node may publish any 32 bytes: with zeros, every node would know what is encrypted to it."""
    with pytest.raises(ValueError, match=r"."):
        sealed_box.seal("secret", "wg0", base64.b64encode(bytes(32)).decode(), bytes(range(32)))
