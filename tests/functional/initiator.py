"""A WireGuard peer that only opens handshakes, with any time stamp: the protocol's section 5.4.2, and no data."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
INITIATION, RESPONSE = 1, 2
"""Types of messages."""
RESPONSE_LENGTH = 92
TAI64_EPOCH = 2**62 + 10
"""The label of the Unix epoch in TAI64, with the ten leap seconds before it."""


class Initiator:
    """A peer with a key of its own. It has no clock: each initiation gets its time."""

    def __init__(self, responder: str, port: int) -> None:
        """*responder* is the public key, in base64, of the device that listens on the local *port*."""
        self._private = X25519PrivateKey.generate()
        self._responder = base64.b64decode(responder)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.5)

    @property
    def public_key(self) -> str:
        """The public key in base64."""
        return base64.b64encode(_raw(self._private)).decode()

    def is_answered(self, seconds: float) -> bool:
        """Send an initiation stamped *seconds* since the Unix epoch, and return whether a response arrives at once."""
        self._socket.send(self._initiation(seconds))
        try:
            answer = self._socket.recv(2048)
        except TimeoutError:
            return False
        return len(answer) == RESPONSE_LENGTH and answer[0] == RESPONSE

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _initiation(self, seconds: float) -> bytes:
        responder = X25519PublicKey.from_public_bytes(self._responder)
        ephemeral = X25519PrivateKey.generate()
        chaining = _hash(CONSTRUCTION)
        transcript = _hash(_hash(chaining + IDENTIFIER) + self._responder)

        sent = _raw(ephemeral)
        chaining, _ = _derive(chaining, sent)
        transcript = _hash(transcript + sent)

        chaining, key = _derive(chaining, ephemeral.exchange(responder))
        static = _seal(key, _raw(self._private), transcript)
        transcript = _hash(transcript + static)

        _, key = _derive(chaining, self._private.exchange(responder))
        stamp = struct.pack(">QI", TAI64_EPOCH + int(seconds), int(seconds % 1 * 1e9))
        message = struct.pack("<I", INITIATION) + os.urandom(4) + sent + static + _seal(key, stamp, transcript)
        mac1 = hashlib.blake2s(message, key=_hash(LABEL_MAC1 + self._responder), digest_size=16).digest()
        # Without a cookie the second MAC is zero.
        return message + mac1 + bytes(16)


def _raw(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _derive(chaining: bytes, data: bytes) -> tuple[bytes, bytes]:
    """The next chaining key, and a key (HKDF, RFC 5869)."""
    secret = hmac.digest(chaining, data, "blake2s")
    first = hmac.digest(secret, b"\x01", "blake2s")
    return first, hmac.digest(secret, first + b"\x02", "blake2s")


def _seal(key: bytes, data: bytes, transcript: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), data, transcript)
