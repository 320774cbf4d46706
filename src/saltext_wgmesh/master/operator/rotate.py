"""Replacing WireGuard keys and preshared keys (PSKs), as the operator asks for it."""

from __future__ import annotations

from typing import Any

from saltext_wgmesh.master.drafting import key_rotation, psk
from saltext_wgmesh.master.operator import run_converge
from saltext_wgmesh.master.operator.converge_result import ConvergeResult
from saltext_wgmesh.master.records import inventory, spelling
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.requests.request import Request, RequestKind


def rotate_keys(opts: dict[str, Any], pattern: str, *, force: bool = False) -> ConvergeResult:
    """Have the nodes that *pattern*, a minion id or a glob, matches get other keys; what the converge did is returned.

    With *force* they do not wait for neighbours that have not acknowledged these keys.

    Raises LedgerError if it matches no node of a published mesh.
    """
    ledger = Ledger.of(opts)
    key_rotation.require_match(pattern, {node for mesh in ledger.meshes() for node in ledger.head(mesh).facts})
    kind = RequestKind.FORCE_ROTATION if force else RequestKind.ROTATE_KEY
    return run_converge.run_converge(opts, Request(kind=kind, value=pattern))


def rotate_psks(opts: dict[str, Any], mesh: str | None) -> ConvergeResult:
    """Have *mesh*, or all meshes that have PSKs, get other ones; what the converge did is returned.

    Raises LedgerError if there is no such mesh.
    """
    policy = inventory.raw_policy(opts)
    name = None if mesh is None else spelling.spelled(mesh, policy if isinstance(policy, dict) else ())
    meshes = psk.meshes_to_rotate(policy, name)
    return run_converge.run_converge(opts, *(Request(kind=RequestKind.ROTATE_PSK, value=name) for name in meshes))
