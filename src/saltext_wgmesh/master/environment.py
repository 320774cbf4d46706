"""All that a run of converge uses outside of its own process."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import salt.utils.event

from saltext_wgmesh.core import constants
from saltext_wgmesh.master.fleet.jobs import Urgent, nothing_urgent
from saltext_wgmesh.master.fleet.port import Fleet, SaltFleet
from saltext_wgmesh.master.records import inventory, ledger_name
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.psk_secrets import PskSecrets
from saltext_wgmesh.master.records.revocations import KeyWatch
from saltext_wgmesh.master.report import MeshReport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The master's data, its nodes and its clock. Tests pass their own."""

    ledger: Ledger
    read_inventory: Callable[[], Inventory]
    """PolicyError if the master's pillar does not render."""
    forget_facts: Callable[[str], None]
    """Deletes a node's facts from the mine."""
    secrets: Callable[[str], PskSecrets]
    """Mesh → the secrets of its PSKs."""
    fleet: Fleet
    announce: Callable[[MeshReport], None]
    """Fires the event of a run that changed something."""
    watch_keys: Callable[[Mapping[str, str]], Urgent] = lambda _: nothing_urgent
    """From keys that were accepted to the question whether one of them is revoked since."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""
    new_ledger_name: Callable[[], str] = str
    """Returns the name for a ledger that has none yet; empty: it gets none."""

    @classmethod
    def of(cls, opts: dict[str, Any]) -> Environment:
        """The environment of the master with these options."""
        return cls(
            ledger=Ledger.of(opts),
            read_inventory=functools.partial(inventory.read_inventory, opts),
            forget_facts=functools.partial(inventory.drop_mine, opts),
            secrets=functools.partial(PskSecrets.of, opts),
            fleet=SaltFleet(opts=opts),
            announce=functools.partial(_announce, opts),
            watch_keys=functools.partial(KeyWatch, opts),
            new_ledger_name=functools.partial(ledger_name.new_ledger_name, opts),
        )


def _announce(opts: dict[str, Any], report: MeshReport) -> None:
    """Fire the event of *report*. A run does not fail because its event can't be fired: the event is only news."""
    try:
        with salt.utils.event.get_event("master", sock_dir=opts["sock_dir"], opts=opts, listen=False) as bus:
            bus.fire_event(report.as_dict(), constants.CONVERGED_TAG.format(mesh=report.mesh))
    except Exception as error:
        log.warning("wgmesh %s: the event of this converge was not fired: %s", report.mesh, error)
