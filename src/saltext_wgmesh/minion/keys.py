"""This node's X25519 key pair. The private key never leaves this process except as a path given to ``wg``."""

from __future__ import annotations

import base64
import logging
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.names import KEY_BYTES
from saltext_wgmesh.minion import files, observe, store
from saltext_wgmesh.minion.host import Host

log = logging.getLogger(__name__)

MODE = 0o600
LOCK = ".key.lock"


def next_file(host: Host) -> Path:
    """Where the next key lies, beside the present one."""
    return host.key_file.with_name(f"{host.key_file.name}.next")


def public_key(host: Host) -> str | None:
    """The public key in base64; None if no key was made yet. HostError if the file holds no key."""
    return public_of(host.key_file)


def next_key(host: Host) -> str | None:
    """The public key that this node is about to run instead; None if there is none."""
    found = public_of(next_file(host))
    return None if found == public_key(host) else found


def lost(host: Host) -> str | None:
    """The public key that interfaces run still, from the kernel's memory, though its file is gone, or None."""
    noted = files.read(_lost_file(host))
    return noted if noted and noted in observe.running_keys(host, store.owned_interfaces(host)) else None


def _lost_file(host: Host) -> Path:
    return host.state_dir / "lost.key"


def chosen(host: Host, turn_to: str | None) -> str | None:
    """The public key that this node is to run: the next one if that is the one to *turn to*, else the present one; None
    if no key was made yet."""
    return turn_to if turn_to and turn_to == next_key(host) else public_key(host)


def file_of(host: Host, public: str) -> Path:
    """Where the private key of *public* lies, if that is the next one; else the present one's file."""
    return next_file(host) if public and public == next_key(host) else host.key_file


def public_of(path: Path) -> str | None:
    """The public key in base64 of the private one in *path*; None if there is no file. HostError if it holds no key."""
    raw = _private_of(path)
    if raw is None:
        return None
    public = X25519PrivateKey.from_private_bytes(raw).public_key()
    return base64.b64encode(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).decode()


def private_keys(host: Host) -> tuple[bytes, ...]:
    """The present private key and the next one, of those that there are; for use within this process only. HostError as
    above."""
    return tuple(raw for path in (host.key_file, next_file(host)) if (raw := _private_of(path)) is not None)


def _private_of(path: Path) -> bytes | None:
    try:
        text = files.read(path)
        if text is None:
            return None
        raw = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        # Nothing of the text, nor of its length: a damaged key is still a secret.
        raise HostError(
            f"{path} holds no WireGuard private key: restore it, or delete it to have a new one made"
        ) from None
    return raw


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
            _replace_lost(host)
        elif mode(host) != MODE:
            host.key_file.chmod(MODE)
        made = found or public_key(host)
    assert made is not None
    return made


def _replace_lost(host: Host) -> None:
    """There is a key again: the next one if there is one, which neighbours may take already, else a new one. Interfaces
    that run a key still are not to leave it before the neighbours take this one."""
    running = observe.running_keys(host, store.owned_interfaces(host)) - {next_key(host)}
    if running:
        log.warning("wgmesh: %s was lost; this node gets another key", host.key_file)
        files.write(_lost_file(host), min(running))
    if next_key(host):
        os.replace(next_file(host), host.key_file)
    else:
        files.write(host.key_file, _new_private_key(), MODE)


def prepare(host: Host) -> str:
    """The public key of a next key that lies beside the present one; one that is there already is kept. HostError if
    there is no present key. Who has just lost one has its next in its place."""
    with files.locked(host.state_dir / ".key.lock"):
        if public_key(host) is None:
            raise HostError(
                f"{host.key_file} is not there: 'salt-call state.apply wgmesh' makes a key and publishes it"
            )
        found = public_key(host) if lost(host) else next_key(host)
        if found is None:
            files.write(next_file(host), _new_private_key(), MODE)
            found = next_key(host)
    assert found is not None
    return found


def finish(host: Host) -> None:
    """The next key is the present one, and the one before is destroyed. Interrupted anywhere there is a present key.

    The old one's bytes are overwritten where they lie, as far as the file system lets anybody do that.
    """
    with files.locked(host.state_dir / ".key.lock"), open(host.key_file, "r+b") as old:
        os.replace(next_file(host), host.key_file)
        files.sync_folder(host.key_file.parent)
        old.write(bytes(os.fstat(old.fileno()).st_size))
        old.flush()
        os.fsync(old.fileno())


def forget_lost(host: Host) -> None:
    """Nothing is remembered of a key that was lost, if no interface runs it any more."""
    if _lost_file(host).exists() and lost(host) is None:
        files.remove(_lost_file(host))


def missing(host: Host) -> dict[str, dict[str, str | None]]:
    """What ``ensure`` would change, as old and new; empty if nothing."""
    if public_key(host) is None:
        return {"key": {"old": None, "new": str(host.key_file)}}
    found = mode(host)
    if found is not None and found != MODE:
        return {"mode": {"old": f"{found:04o}", "new": f"{MODE:04o}"}}
    return {}


def is_any(host: Host) -> bool:
    """Whether there is a key, the next one, or the memory of one that was lost."""
    return any(path.exists() for path in (host.key_file, next_file(host), _lost_file(host)))


def remove(host: Host) -> None:
    """No key is there."""
    lock = host.state_dir / LOCK
    with files.locked(lock):
        files.remove(_lost_file(host))
        files.remove(next_file(host))
        files.remove(host.key_file)
        files.remove(lock)


def _new_private_key() -> str:
    raw = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return base64.b64encode(raw).decode() + "\n"
