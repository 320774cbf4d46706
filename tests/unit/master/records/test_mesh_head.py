"""The head of a mesh as the ledger has it."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.inputs.facts_format import facts_as_dict
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.master.records.mesh_head import facts_from_ledger


@pytest.mark.parametrize("lans", [None, (), ("192.0.2.0/24",)])
@pytest.mark.parametrize("next_key", [None, "next"])
def test_ledger_keeps_all_facts(lans: tuple[str, ...] | None, next_key: str | None) -> None:
    """Otherwise each run would take the facts of a node for changed."""
    own = Facts(
        node="a",
        public_key="key",
        salt_key="salt",
        underlay=("192.0.2.1",),
        networks=("192.0.2.0/24",),
        lans=lans,
        ipv6=True,
        next_key=next_key,
    )
    assert facts_from_ledger("a", facts_as_dict(own)) == own
