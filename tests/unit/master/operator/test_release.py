"""``wgmesh.release``: the addresses of a node that left become free."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.operator.release import free_addresses
from tests.unit.harness.fake_master import FakeMaster


def test_address_is_released_once_its_node_is_gone():
    """Neither with an accepted key nor out of a published plan; afterwards the allocations know nothing of it."""
    master = FakeMaster()

    def released() -> dict[str, list[str]]:
        return free_addresses(master.ledger, "a", master.inventory().accepted)

    master.run()
    with pytest.raises(LedgerError, match="accepted key"):
        released()
    master.deleted = {"a"}
    with pytest.raises(LedgerError, match="published plan"):
        released()
    master.run()
    (address,) = master.ledger.head("wg0").allocations.addresses["a"]
    assert released() == {"wg0": [address]}
    assert "a" not in master.ledger.head("wg0").allocations.addresses
    with pytest.raises(LedgerError, match="no addresses"):
        released()
