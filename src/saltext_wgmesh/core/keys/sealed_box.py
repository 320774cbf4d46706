"""A short text that only the node with one WireGuard key can read.

Salt encrypts a minion's pillar on the wire. But Salt also keeps the pillar in the master's cache, and ``pillar.items``
prints it, also into the job cache. So preshared keys stand in the pillar sealed to the node's own key: X25519 with an
ephemeral key, HKDF-SHA256, ChaCha20-Poly1305 (RFC 7748, 5869, 8439).
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saltext_wgmesh.core.constants import KEY_BYTES
from saltext_wgmesh.core.keys.psk import hkdf

SEAL_LABEL = b"saltext-wgmesh sealed 1"
_NONCE = bytes(12)
"""The nonce may be constant, since each key encrypts one text only."""


def seal(plaintext: str, context: str, recipient: str, ephemeral_key: bytes) -> str:
    """Return *plaintext* as a box that only the owner of the public key *recipient* can open.

    *context* is authenticated and not encrypted. *ephemeral_key* is 32 random bytes that have no other use. Raises
    ValueError if *recipient* is no point that can be encrypted to.
    """
    private = X25519PrivateKey.from_private_bytes(ephemeral_key)
    point = base64.b64decode(recipient)
    ephemeral_public = _raw(private.public_key())
    shared = private.exchange(X25519PublicKey.from_public_bytes(point))
    encrypted = _cipher(shared, ephemeral_public, point).encrypt(_NONCE, plaintext.encode(), context.encode())
    return base64.b64encode(ephemeral_public + encrypted).decode()


def open_sealed(box: str, context: str, private_key: bytes) -> str:
    """Return the text that was sealed to *private_key* (32 bytes) with *context*; ValueError for any other *box*."""
    recipient = X25519PrivateKey.from_private_bytes(private_key)
    try:
        raw = base64.b64decode(box, validate=True)
        ephemeral_public, encrypted = raw[:KEY_BYTES], raw[KEY_BYTES:]
        shared = recipient.exchange(X25519PublicKey.from_public_bytes(ephemeral_public))
        cipher = _cipher(shared, ephemeral_public, _raw(recipient.public_key()))
        return cipher.decrypt(_NONCE, encrypted, context.encode()).decode()
    except (binascii.Error, InvalidTag, ValueError):
        # One message for all causes, and no cause attached, so that an error tells nothing of the text or the key.
        raise ValueError("it was not sealed to this key") from None


def _cipher(shared: bytes, ephemeral_public: bytes, recipient: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hkdf(shared, SEAL_LABEL + ephemeral_public + recipient))


def _raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
