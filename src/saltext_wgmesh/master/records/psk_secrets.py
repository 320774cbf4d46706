"""The secrets that the meshes' preshared keys (PSKs) are derived from, in files below the master's ``pki_dir``.

They are not in Salt's cache, which runners print and which may be on another machine. The name of a file is a hash of
its secret, so a damaged or replaced file is noticed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import naming
from saltext_wgmesh.core.keys import psk, sealed_box

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret that prints as its name."""

    text: str = field(repr=False)
    """Base64 of 32 bytes."""

    @classmethod
    def make(cls) -> Secret:
        """A new random secret."""
        return cls(text=base64.b64encode(secrets.token_bytes(constants.KEY_BYTES)).decode())

    @property
    def name(self) -> str:
        """Its name in the ledger: a hash of it."""
        return str(psk.psk_id(self.text))

    def key(self, mesh: str, one: str, other: str) -> str:
        """The PSK of two public keys in *mesh*."""
        return psk.derive_psk(base64.b64decode(self.text), mesh, one, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class PskSecrets:
    """The secrets of one mesh."""

    folder: Path
    mesh: str

    @classmethod
    def of(cls, opts: Mapping[str, Any], mesh: str) -> PskSecrets:
        """The secrets of *mesh* on the master with these options."""
        return cls(folder=Path(opts["pki_dir"], "wgmesh", mesh), mesh=mesh)

    def secret(self, name: str) -> Secret | None:
        """The secret of that name; None if there is no file of it, or if the file holds another secret."""
        try:
            found = Secret(text=(self.folder / f"{name}.secret").read_text().strip())
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return found if found.name == name else None

    def save(self, secret: Secret) -> None:
        """Write *secret* durably to a file that only its owner can read.

        A power failure leaves the whole secret or none: a published plan must never name one that is lost.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{secret.name}.secret"
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        # The mode is set at creation: before a later chmod, another user could open the file.
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with naming(path), os.fdopen(handle, "w") as stream:
                stream.write(f"{secret.text}\n")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        # The new name is an entry of the folder, which fsync of the file does not write (fsync(2)).
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def prune(self, kept: Collection[str]) -> None:
        """Delete all secrets but those named *kept*."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.folder.iterdir()):
                if path.name.removesuffix(".secret") not in kept:
                    path.unlink(missing_ok=True)

    def names(self) -> frozenset[str]:
        """The names of all secrets whose files are undamaged. PermissionError if they can't be read."""
        try:
            files = [path for path in self.folder.iterdir() if path.suffix == ".secret" and path.name[0] != "."]
        except FileNotFoundError:
            return frozenset()
        return frozenset(path.stem for path in files if self.secret(path.stem))


def sealed_psks(opts: Mapping[str, Any], assignments: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Mesh → the PSKs that a node's published views name, sealed to the node's own key; only meshes that have some.

    *assignments* are those of one node by mesh, in plain values. A PSK that can't be delivered is missing, and an
    error is logged: the node then keeps what it runs.
    """
    boxes = {}
    for mesh, view in assignments.items():
        own_keys = view.get("keys", ())
        peers = [peer for i in view.get("interfaces", ()) for peer in i["peers"] if peer.get("psk_ids")]
        if not (own_keys and peers):
            continue
        found = _psks(PskSecrets.of(opts, mesh), own_keys, peers)
        if found.keys() != {psk_id for peer in peers for psk_id in peer["psk_ids"]}:
            log.error("wgmesh %s: a secret of the PSKs of %s is missing: run wgmesh.converge", mesh, view["node"])
        try:
            # The last key is the next one, if there is one. The node has it, and may have deleted the one before.
            boxes[mesh] = sealed_box.seal(
                json.dumps(found), mesh, own_keys[-1], secrets.token_bytes(constants.KEY_BYTES)
            )
        except ValueError:
            log.error("wgmesh %s: nothing can be sealed to the public key of %s", mesh, view["node"])
    return boxes


def _psks(known: PskSecrets, own_keys: Collection[str], peers: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """PSK id → PSK, of all that *peers* name and that a *known* secret gives."""
    all_secrets = [secret for name in sorted(known.names()) if (secret := known.secret(name))]
    found: dict[str, str] = {}
    for peer in peers:
        peer_keys = [key for key in (peer["public_key"], peer.get("next_key")) if key]
        for key in (s.key(known.mesh, own, other) for s in all_secrets for own in own_keys for other in peer_keys):
            if (psk_id := psk.psk_id(key)) in peer["psk_ids"]:
                found[str(psk_id)] = key
    return found
