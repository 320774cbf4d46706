"""Preshared keys: one a pair of public keys, derived from a secret of the mesh, and the names that stand for them.

A key itself is in no view, plan or ledger entry: there its *identifier* stands, which changes with the key and
can't be turned into it. Keys are 32 bytes in base64, as ``wg`` takes them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import product

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from saltext_wgmesh.core.names import KEY_BYTES
from saltext_wgmesh.core.types import IDENTIFIER, Peer, View

LABEL = b"saltext-wgmesh preshared key 1"
"""What the keys are for; another derivation would have another label."""
_NO_KEY = base64.b64encode(bytes(KEY_BYTES)).decode()
_DIGITS = 16


def derive(secret: bytes, mesh: str, one: str, other: str) -> str:
    """The key of two public keys, in either order. HKDF-SHA256 (RFC 5869) without salt, since *secret* is random;
    ``info`` is the label, the mesh and both keys, which all have a length or an end of their own."""
    first, second = sorted(base64.b64decode(key) for key in (one, other))
    info = b"\0".join((LABEL, mesh.encode(), first + second))
    return base64.b64encode(hkdf(secret, info)).decode()


def hkdf(secret: bytes, info: bytes, *, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256, extract and expand (RFC 5869 section 2)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def identifier(key: str) -> str | None:
    """What stands for *key* wherever it must not be: 64 bits of its SHA-256 in hex; None for no key (all zero)."""
    if key == _NO_KEY:
        return None
    return hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]


def is_identifier(text: str) -> bool:
    """Whether *text* can be one, and so is safe as the name of a file."""
    return re.fullmatch(IDENTIFIER, text) is not None


def identifiers(view: View) -> Iterator[str]:
    """Those of the keys that *view* asks for."""
    yield from (name for interface in view.interfaces for peer in interface.peers for name in peer.preshared)


def pairs(own: Iterable[str], peer: Peer) -> list[tuple[str, str]]:
    """A node's *own* public keys with those of *peer*, in the order of ``Peer.preshared``."""
    return list(product(own, peer.keys))


def between(view: View, own: str, peer: Peer, other: str) -> str | None:
    """The identifier of the preshared key of the node's public key *own* and the *other* of *peer*; None: they have
    none, as with a key that the master has not heard of yet."""
    return dict(zip(pairs(view.keys, peer), peer.preshared, strict=False)).get((own, other))
