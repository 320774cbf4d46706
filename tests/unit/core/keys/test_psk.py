"""Preshared keys: their derivation and identifiers."""

from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import psk

KEYS = st.binary(min_size=32, max_size=32)
PUBLIC = KEYS.map(lambda raw: base64.b64encode(raw).decode())
MESHES = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)


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
def test_hkdf_has_the_vectors_of_rfc_5869(secret: str, salt: str, info: str, okm: str) -> None:
    """Appendix A.1 and A.3: SHA-256, with salt and info, and without, as preshared keys are derived."""
    found = psk.hkdf(bytes.fromhex(secret), bytes.fromhex(info), salt=bytes.fromhex(salt) or None, length=42)
    assert found.hex() == okm


def test_derive_psk_is_stable_across_versions() -> None:
    """An upgrade of the master must not change the keys of nodes. Written out with HMAC alone, as RFC 5869 has it."""
    one, other = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    info = b"saltext-wgmesh preshared key 1" + b"\0wg0\0" + b"\1" * 32 + b"\2" * 32
    expanded = base64.b64encode(hmac.digest(extracted, info + b"\1", "sha256")).decode()
    assert (
        psk.derive_psk(bytes(range(32)), "wg0", one, other)
        == expanded
        == "IrBn5stEaeu8LWxuzGoQrs01ZpXoKYODvd7k4vBDoUQ="
    )


@given(KEYS, MESHES, PUBLIC, PUBLIC)
def test_derive_psk_is_equal_for_both_ends(secret: bytes, mesh: str, one: str, other: str) -> None:
    """32 bytes in base64, whichever end is named first."""
    made = psk.derive_psk(secret, mesh, one, other)
    assert made == psk.derive_psk(secret, mesh, other, one)
    assert len(base64.b64decode(made, validate=True)) == 32


@given(
    *(st.lists(values, min_size=2, max_size=2, unique=True) for values in (KEYS, MESHES)),
    st.lists(PUBLIC, min_size=3, max_size=3, unique=True),
)
def test_derive_psk_differs_by_secret_mesh_and_pair(secrets: list, meshes: list, ends: list) -> None:
    """A node with one key has none of the others."""
    pairs = [(ends[0], ends[1]), (ends[0], ends[2]), (ends[1], ends[2])]
    made = {psk.derive_psk(s, m, *pair) for s in secrets for m in meshes for pair in pairs}
    assert len(made) == 2 * 2 * 3
    assert len({psk.psk_id(one) for one in made}) == len(made)


@given(PUBLIC)
def test_psk_id_is_safe_and_reveals_nothing(made: str) -> None:
    """It is safe as the name of a file, and has nothing of the key."""
    name = psk.psk_id(made)
    assert name is None or (psk.is_psk_id(name) and name not in made)


def test_psk_id_of_no_key_is_none() -> None:
    """WireGuard spells no key as 32 zero bytes."""
    assert psk.psk_id(base64.b64encode(bytes(32)).decode()) is None
