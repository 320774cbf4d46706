"""Names as the operator spelled them, where Salt's command line made other values of them.

It reads arguments as YAML: ``1001`` is a number, ``010`` is 8, ``yes`` is true, and ``null`` is nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import salt.utils.args

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records.ledger import Ledger


def minion_id(opts: dict[str, Any], value: object) -> str:
    """Return the minion id that *value* was made of; LedgerError if several known ids give the same value."""
    # One key is read in the usual case, an id of digits.
    if isinstance(value, str) or inventory.is_accepted(opts, str(value)):
        return str(value)
    return spelled(value, _known_ids(opts))


def spelled(value: object, known: Collection[str]) -> str:
    """Return the text that *value* was made of: one of *known* if there is one, else *value* as text.

    LedgerError if several of *known* give the same value.
    """
    if isinstance(value, str) or str(value) in known:
        return str(value)
    found = [name for name in sorted(known) if _is_same(salt.utils.args.yamlify_arg(name), value)]
    if len(found) > 1:
        raise LedgerError(f"{value} may be {' or '.join(found)}: put the name in quotes twice, as in \"'{found[0]}'\"")
    return found[0] if found else str(value)


def _is_same(one: object, other: object) -> bool:
    """Whether these are equal and of one type: in Python, 1 equals True."""
    return type(one) is type(other) and one == other


def _known_ids(opts: dict[str, Any]) -> frozenset[str]:
    """The ids with an accepted key, and all that have an address in a mesh, also of nodes that left."""
    ledger = Ledger.of(opts)
    heads: Iterable[Any] = (ledger.head(mesh) for mesh in ledger.meshes())
    allocated = (node for head in heads for node in (*head.allocations.addresses, *head.digests))
    return frozenset((*inventory.accepted_keys(opts), *allocated))
