"""Preshared keys, one per pair of public keys, derived from a secret of the mesh, and their identifiers.

No view, plan or ledger entry has a key itself. It has the *identifier* of the key, which changes with the key and does
not reveal it. Keys are 32 bytes in base64, as ``wg`` accepts them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import product

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from saltext_wgmesh.core.constants import KEY_BYTES
from saltext_wgmesh.core.model.view import PSK_ID_PATTERN, Peer, View

DERIVE_LABEL = b"saltext-wgmesh preshared key 1"
"""The purpose of the derived keys; another derivation must have another label."""
_NO_KEY = base64.b64encode(bytes(KEY_BYTES)).decode()
_DIGITS = 16


def derive_psk(secret: bytes, mesh: str, one: str, other: str) -> str:
    """Return the preshared key of the public keys *one* and *other*, in either order.

    HKDF-SHA256 (RFC 5869) without salt, since *secret* is random. ``info`` is the label, the mesh and both keys; each
    part has a fixed length or an end of its own, so that no two inputs have the same ``info``.
    """
    first, second = sorted(base64.b64decode(key) for key in (one, other))
    info = b"\0".join((DERIVE_LABEL, mesh.encode(), first + second))
    return base64.b64encode(hkdf(secret, info)).decode()


def hkdf(secret: bytes, info: bytes, *, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """Return *length* bytes of HKDF-SHA256, extract and expand (RFC 5869 section 2)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def psk_id(key: str) -> str | None:
    """Return the identifier of *key*: 64 bits of its SHA-256 in hex; None for no key (all zero)."""
    if key == _NO_KEY:
        return None
    return hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]


def is_psk_id(text: str) -> bool:
    """Return whether *text* can be an identifier, and so is safe as the name of a file."""
    return re.fullmatch(PSK_ID_PATTERN, text) is not None


def psk_ids(view: View) -> Iterator[str]:
    """Yield the identifiers of all keys that *view* needs."""
    yield from (name for interface in view.interfaces for peer in interface.peers for name in peer.psk_ids)


def psk_pairs(own: Iterable[str], peer: Peer) -> list[tuple[str, str]]:
    """Return each of a node's *own* public keys with each key of *peer*, in the order of ``Peer.psk_ids``."""
    return list(product(own, peer.keys))


def psk_id_between(view: View, own: str, peer: Peer, other: str) -> str | None:
    """Return the identifier of the preshared key of the node's public key *own* and the key *other* of *peer*.

    None: the two have no preshared key, for instance since the master does not know one of them yet.
    """
    return dict(zip(psk_pairs(view.keys, peer), peer.psk_ids, strict=False)).get((own, other))
