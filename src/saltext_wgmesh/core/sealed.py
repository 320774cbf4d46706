"""A few words that only the node with one WireGuard key can read.

Salt encrypts a minion's pillar on the wire, but keeps it in the master's cache and prints it for whoever asks
(``pillar.items``, and then the job cache). So preshared keys stand in it sealed to the node's own key: X25519 with a
key that is used once, HKDF-SHA256, ChaCha20-Poly1305 (RFC 7748, 5869, 8439).
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saltext_wgmesh.core.names import KEY_BYTES
from saltext_wgmesh.core.preshared import hkdf

LABEL = b"saltext-wgmesh sealed 1"
_NONCE = bytes(12)
"""Each key encrypts one text only, so the nonce need not differ."""


def seal(text: str, about: str, reader: str, once: bytes) -> str:
    """*text* about something, for the owner of the public key *reader*; *once* are 32 random bytes that are used for
    nothing else. ValueError if *reader* is no point that can be encrypted to."""
    private = X25519PrivateKey.from_private_bytes(once)
    point = base64.b64decode(reader)
    own = _raw(private.public_key())
    shared = private.exchange(X25519PublicKey.from_public_bytes(point))
    return base64.b64encode(own + _cipher(shared, own, point).encrypt(_NONCE, text.encode(), about.encode())).decode()


def unseal(box: str, about: str, private: bytes) -> str:
    """The text that was sealed to the key *private*; ValueError if this is none, or none about that."""
    reader = X25519PrivateKey.from_private_bytes(private)
    try:
        raw = base64.b64decode(box, validate=True)
        own, encrypted = raw[:KEY_BYTES], raw[KEY_BYTES:]
        shared = reader.exchange(X25519PublicKey.from_public_bytes(own))
        return _cipher(shared, own, _raw(reader.public_key())).decrypt(_NONCE, encrypted, about.encode()).decode()
    except (binascii.Error, InvalidTag, ValueError):
        raise ValueError("it was not sealed to this key") from None


def _cipher(shared: bytes, own: bytes, reader: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hkdf(shared, LABEL + own + reader))


def _raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
