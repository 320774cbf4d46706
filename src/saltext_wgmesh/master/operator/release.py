"""Freeing the addresses of a node that left."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.requests.reactions import queue_dir
from saltext_wgmesh.master.requests.run_queue import RunQueue


def release(opts: dict[str, Any], node: str) -> dict[str, list[str]]:
    """Mesh → the addresses of *node* that are free now.

    Raises LedgerError if the node still has an accepted key or is in a published plan. Waits for a run in progress,
    which could write the same part of the ledger.
    """
    with RunQueue(queue_dir(opts)).exclusive():
        return free_addresses(Ledger.of(opts), node, inventory.accepted_keys(opts))


def free_addresses(ledger: Ledger, node: str, accepted: Container[str]) -> dict[str, list[str]]:
    """Mesh → the addresses that were allocated to *node* and are free now.

    The caller holds the run queue's lock. LedgerError if the node is among the *accepted* minion ids, or in a published
    plan.
    """
    if node in accepted:
        raise LedgerError(f"{node} has an accepted key: delete it first, 'salt-key -d {node}'")
    freed = {}
    for mesh in ledger.meshes():
        head = ledger.head(mesh)
        if node in head.digests:
            raise LedgerError(f"{node} is in the published plan of {mesh}: run 'salt-run wgmesh.converge' first")
        addresses = dict(head.allocations.addresses)
        if node in addresses:
            freed[mesh] = list(addresses.pop(node))
            relays_of = {leaf: relays for leaf, relays in head.allocations.relays.items() if leaf != node}
            allocations = replace(head.allocations, addresses=addresses, relays=relays_of)
            ledger.save_head(mesh, replace(head, allocations=allocations))
    if not freed:
        raise LedgerError(f"no addresses are reserved for {node}")
    return freed
