"""This node's X25519 key pair. The private key never leaves this file except as a path given to ``wg``."""

from __future__ import annotations

import base64
import binascii
import stat

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.names import KEY_BYTES
from saltext_wgmesh.minion import files
from saltext_wgmesh.minion.host import Host

MODE = 0o600
LOCK = ".key.lock"


def public_key(host: Host) -> str | None:
    """The public key in base64; None if no key was made yet. HostError if the file holds no key."""
    text = files.read(host.key_file)
    if text is None:
        return None
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != KEY_BYTES:
        # Nothing of the text, nor of its length: a damaged key is still a secret.
        raise HostError(
            f"{host.key_file} holds no WireGuard private key: restore it, or delete it to have a new one made"
        ) from None
    public = X25519PrivateKey.from_private_bytes(raw).public_key()
    return base64.b64encode(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).decode()


def mode(host: Host) -> int | None:
    """The permission bits of the key file; None if there is none."""
    try:
        return stat.S_IMODE(host.key_file.stat().st_mode)
    except FileNotFoundError:
        return None


def ensure(host: Host) -> str:
    """The public key of a key that exists, readable by its owner only. An existing valid key is kept."""
    with files.locked(host.state_dir / LOCK):
        found = public_key(host)
        if found is None:
            files.write(host.key_file, _new_private_key(), MODE)
        elif mode(host) != MODE:
            host.key_file.chmod(MODE)
        made = found or public_key(host)
    assert made is not None
    return made


def missing(host: Host) -> dict[str, dict[str, str | None]]:
    """What ``ensure`` would change, as old and new; empty if nothing."""
    if public_key(host) is None:
        return {"key": {"old": None, "new": str(host.key_file)}}
    found = mode(host)
    if found is not None and found != MODE:
        return {"mode": {"old": f"{found:04o}", "new": f"{MODE:04o}"}}
    return {}


def remove(host: Host) -> None:
    """No key is there."""
    lock = host.state_dir / LOCK
    with files.locked(lock):
        files.remove(host.key_file)
        files.remove(lock)


def _new_private_key() -> str:
    raw = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return base64.b64encode(raw).decode() + "\n"
