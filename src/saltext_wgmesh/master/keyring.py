"""The secrets from which the meshes' preshared keys are made: the master's alone, in files below its ``pki_dir``.

Not in Salt's cache, which its runners print and which may be on another machine. A file's name is the secret's
own: a hash of it, so that whatever names a secret can't be answered with another.
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

from saltext_wgmesh.core import names, preshared, sealed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret that prints as its name."""

    text: str = field(repr=False)
    """Base64 of 32 bytes."""

    @classmethod
    def make(cls) -> Secret:
        """One that nobody ever had."""
        return cls(text=base64.b64encode(secrets.token_bytes(names.KEY_BYTES)).decode())

    @property
    def name(self) -> str:
        """By which the ledger knows it."""
        return str(preshared.identifier(self.text))

    def key(self, mesh: str, one: str, other: str) -> str:
        """The preshared key of two public keys."""
        return preshared.derive(base64.b64decode(self.text), mesh, one, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The secrets of one mesh."""

    folder: Path
    mesh: str

    @classmethod
    def of(cls, opts: Mapping[str, Any], mesh: str) -> Keyring:
        """Those of *mesh* on the master with these options."""
        return cls(folder=Path(opts["pki_dir"], "wgmesh", mesh), mesh=mesh)

    def secret(self, name: str) -> Secret | None:
        """The secret of that name; None if it is not here, or its file holds another."""
        try:
            found = Secret(text=(self.folder / f"{name}.secret").read_text().strip())
        except FileNotFoundError:
            return None
        return found if found.name == name else None

    def keep(self, secret: Secret) -> None:
        """*secret* is here, durably, and readable by its owner only."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{secret.name}.secret"
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(f"{secret.text}\n")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def drop(self, kept: Collection[str]) -> None:
        """No secret is here but those named *kept*."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.folder.iterdir()):
                if path.name.removesuffix(".secret") not in kept:
                    path.unlink(missing_ok=True)

    def names(self) -> frozenset[str]:
        """The names of all secrets that are here, whole."""
        found = (path.stem for path in self.folder.glob("[!.]*.secret"))
        return frozenset(name for name in found if self.secret(name))


def delivery(opts: Mapping[str, Any], views: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Mesh → the preshared keys that a node's published *views* ask for, sealed to its own key; only meshes that have
    some. What can't be delivered is logged, and missing."""
    boxes = {}
    for mesh, view in views.items():
        own = view.get("keys", ())
        peers = [p for i in view.get("interfaces", ()) for p in i["peers"] if p.get("preshared")]
        if not (own and peers):
            continue
        found = _keys(Keyring.of(opts, mesh), own, peers)
        if found.keys() != {name for peer in peers for name in peer["preshared"]}:
            told = "wgmesh %s: preshared keys of %s are made from a secret that is not here: run wgmesh.converge"
            log.error(told, mesh, view["node"])
        try:
            # The last is the next key, where there is one: the node has that, and may have destroyed the one before.
            boxes[mesh] = sealed.seal(json.dumps(found), mesh, own[-1], secrets.token_bytes(names.KEY_BYTES))
        except ValueError:
            log.error("wgmesh %s: nothing can be sealed to the public key of %s", mesh, view["node"])
    return boxes


def _keys(keyring: Keyring, own: Collection[str], peers: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """Identifier → key, of all that *peers* ask for and that is made from a secret that is here."""
    known = [secret for name in sorted(keyring.names()) if (secret := keyring.secret(name))]
    found: dict[str, str] = {}
    for peer in peers:
        others = [key for key in (peer["public_key"], peer.get("next_key")) if key]
        for key in (s.key(keyring.mesh, one, other) for s in known for one in own for other in others):
            if (name := preshared.identifier(key)) in peer["preshared"]:
                found[str(name)] = key
    return found
