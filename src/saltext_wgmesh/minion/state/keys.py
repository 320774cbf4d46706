"""This node's X25519 key pair, and during a key rotation its next one.

A private key never leaves this process: ``wg`` gets the path of its file.
"""

from __future__ import annotations

import base64
import logging
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from saltext_wgmesh.core.constants import KEY_BYTES, LOST_KEY_FILE
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.state import key_holder, store
from saltext_wgmesh.minion.system import files, kernel
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger(__name__)

MODE = 0o600
LOCK = ".key.lock"


def next_file(host: Host) -> Path:
    """Return the path of the next key, beside the present one."""
    return host.key_file.with_name(f"{host.key_file.name}.next")


def public_key(host: Host) -> str | None:
    """Return the public key in base64; None if there is no key yet. HostError if the file holds no key."""
    return public_of(host.key_file)


def next_key(host: Host) -> str | None:
    """Return the public key that this node is about to run instead; None if there is none."""
    found = public_of(next_file(host))
    return None if found == public_key(host) else found


def orphaned_key(host: Host) -> str | None:
    """Return the public key that interfaces still run from the kernel's memory though its file is lost, or None."""
    noted = files.read_file(_orphan_file(host))
    return noted if noted and noted in kernel.running_keys(host, store.owned_interfaces(host)) else None


def _orphan_file(host: Host) -> Path:
    return host.state_dir / LOST_KEY_FILE


def key_to_run(host: Host, activate_key: str | None) -> str | None:
    """Return the public key that this node is to run; None if it has no key yet.

    That is the next key if it is *activate_key*, the key that the view activates; else the present one.
    """
    return activate_key if activate_key and activate_key == next_key(host) else public_key(host)


def path_of(host: Host, public: str) -> Path:
    """Return the file with the private key of *public* if that is the next key; else the file of the present key."""
    return next_file(host) if public and public == next_key(host) else host.key_file


def public_of(path: Path) -> str | None:
    """Return the public key, in base64, of the private key in *path*; None without a file. HostError if it is none."""
    raw = _private_of(path)
    if raw is None:
        return None
    public = X25519PrivateKey.from_private_bytes(raw).public_key()
    return base64.b64encode(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).decode()


def private_keys(host: Host) -> tuple[bytes, ...]:
    """Return the present private key and the next one, if there are such; for use within this process only.

    HostError as above.
    """
    return tuple(raw for path in (host.key_file, next_file(host)) if (raw := _private_of(path)) is not None)


def _private_of(path: Path) -> bytes | None:
    try:
        text = files.read_file(path)
        if text is None:
            return None
        raw = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        # The message has nothing of the text, nor its length: a damaged key is still a secret.
        raise HostError(
            f"{path} holds no WireGuard private key: restore it, or delete it to have a new one made"
        ) from None
    return raw


def mode(host: Host) -> int | None:
    """Return the permission bits of the key file; None without the file."""
    try:
        return stat.S_IMODE(host.key_file.stat().st_mode)
    except FileNotFoundError:
        return None


def ensure(host: Host) -> str:
    """Create a key if there is none, readable by its owner only, and return its public key.

    An existing valid key is kept, and its permissions are corrected.
    """
    with files.locked(host.state_dir / LOCK):
        found = public_key(host)
        if found is None:
            _replace_lost_key(host)
        elif mode(host) != MODE:
            host.key_file.chmod(MODE)
        made = found or public_key(host)
    assert made is not None
    return made


def _replace_lost_key(host: Host) -> None:
    """Make the next key the present one, which neighbours may accept already; without a next key, create a new one.

    A key that interfaces still run is recorded as orphaned. They run it until the neighbours accept the new key.
    """
    running = kernel.running_keys(host, store.owned_interfaces(host)) - {next_key(host)}
    # Noted before a new key is written: a process that dies between finds the file still lost, and notes it again.
    if running:
        log.warning("wgmesh: %s was lost: replacing the key of this node", host.key_file)
        files.write_file(_orphan_file(host), min(running))
    if next_key(host):
        os.replace(next_file(host), host.key_file)
    else:
        files.write_file(host.key_file, _new_private_key(), MODE)


def missing_key(host: Host) -> HostError:
    """Return the error for a node that has no key yet."""
    return HostError(f"{host.key_file} does not exist: 'salt-call state.apply wgmesh' creates a key and publishes it")


def create_next_key(host: Host) -> str:
    """Create the next key beside the present one, and return its public key. An existing next key is kept.

    On a node with an orphaned key, the present key is the next one: interfaces don't run it yet. HostError if there is
    no present key.
    """
    with files.locked(host.state_dir / LOCK):
        if public_key(host) is None:
            raise missing_key(host)
        found = public_key(host) if orphaned_key(host) else next_key(host)
        if found is None:
            files.write_file(next_file(host), _new_private_key(), MODE)
            found = next_key(host)
    assert found is not None
    return found


def retire_old_key(host: Host) -> bool:
    """Promote the next key if every interface of every mesh runs it already; return whether that was done.

    Until then both files stay. An interface that comes up at boot runs the old key, which the neighbours accept too.
    """
    forget_orphan(host)
    following = next_key(host)
    if following is None or kernel.running_keys(host, store.owned_interfaces(host)) != {following}:
        return False
    promote_next_key(host)
    log.info("wgmesh: all interfaces run the next key, %s; the old key was destroyed", following)
    return True


def promote_next_key(host: Host) -> None:
    """Make the next key the present one, and destroy the old one. At each moment the node has a present key.

    The bytes of the old key are overwritten in place, as far as the file system allows it.
    """
    with files.locked(host.state_dir / LOCK), open(host.key_file, "r+b") as old:
        os.replace(next_file(host), host.key_file)
        files.sync_folder(host.key_file.parent)
        old.write(bytes(os.fstat(old.fileno()).st_size))
        old.flush()
        os.fsync(old.fileno())


def forget_orphan(host: Host) -> None:
    """Delete the record of an orphaned key, if no interface runs that key any longer."""
    if _orphan_file(host).exists() and orphaned_key(host) is None:
        files.remove_file(_orphan_file(host))


def pending_changes(host: Host) -> dict[str, dict[str, str | None]]:
    """Return what ``ensure`` would change, as old and new; empty if nothing."""
    if public_key(host) is None:
        return {"key": {"old": None, "new": str(host.key_file)}}
    found = mode(host)
    if found is not None and found != MODE:
        return {"mode": {"old": f"{found:04o}", "new": f"{MODE:04o}"}}
    return {}


def exists(host: Host) -> bool:
    """Return whether there is a key, a next key, or the record of an orphaned one."""
    return any(path.exists() for path in (host.key_file, next_file(host), _orphan_file(host)))


def remove_keys(host: Host) -> None:
    """Delete the key, the next key, and the records of an orphaned one and of the minion that holds the key."""
    lock = host.state_dir / LOCK
    with files.locked(lock):
        files.remove_file(_orphan_file(host))
        files.remove_file(next_file(host))
        files.remove_file(host.key_file)
        files.remove_file(key_holder.holder_file(host))
        files.remove_file(lock)


def _new_private_key() -> str:
    raw = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return base64.b64encode(raw).decode() + "\n"
