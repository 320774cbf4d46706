"""Keys for the codes of BFD packets: both ends derive them from their WireGuard keys, and no file holds them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import product

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saltext_wgmesh.core.constants import KEY_BYTES
from saltext_wgmesh.core.keys.psk import hkdf
from saltext_wgmesh.core.liveness.bfd_auth import LinkKey

BFD_LABEL = b"saltext-wgmesh bfd 1"
"""The purpose of the derived keys; another derivation must have another label."""


def link_keys(private_keys: Iterable[bytes], peer_keys: Iterable[str]) -> tuple[LinkKey, ...]:
    """Return the keys of one link, for each of *private_keys* (32 bytes) with each public key of the neighbour.

    X25519 and HKDF-SHA256 (RFC 7748, RFC 5869). ``info`` is the label and both public keys in order. The end with the
    first one sends with the first half. A public key that is no point of the curve has no key.
    """
    own = [X25519PrivateKey.from_private_bytes(raw) for raw in private_keys]
    return tuple(key for private, peer_key in product(own, peer_keys) for key in _link_key(private, peer_key))


def _link_key(private: X25519PrivateKey, peer_key: str) -> Iterator[LinkKey]:
    ours = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    try:
        theirs = base64.b64decode(peer_key, validate=True)
        shared = private.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        return
    first, second = sorted((ours, theirs))
    made = hkdf(shared, BFD_LABEL + first + second, length=2 * KEY_BYTES)
    halves = made[:KEY_BYTES], made[KEY_BYTES:]
    send, receive = halves if ours == first else halves[::-1]
    yield LinkKey(send=send, receive=receive)
