"""
Give each minion its own views of the meshes, and nothing of any other minion.

.. versionadded:: 0.1.0

.. code-block:: yaml

    ext_pillar:
      - wgmesh: true

It sets up to five pillar keys. They are read from the master's cache; nothing is planned here.

``wgmesh_view``
    The minion's view of the current generation by mesh, or the reason why it has none.

``wgmesh_published``
    The digest of the minion's facts in the mine. With it, the minion need not ask the mine.

``wgmesh_preshared``
    The preshared keys that the views name, in boxes that only the node's own WireGuard key opens. A printed or cached
    pillar reveals no key.

``wgmesh_error``
    The records that could not be read, and why. The other keys have the rest. The states of this extension then fail,
    and no other state does.

``wgmesh_failed_run``
    For a minion without a view: why the last run of ``wgmesh.converge`` failed, and its number.
"""

import logging

import salt.cache
import salt.exceptions

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.master.records import inventory, psk_secrets
from saltext_wgmesh.master.records.ledger import Ledger

log = logging.getLogger(__name__)

__virtualname__ = "wgmesh"


def __virtual__():
    return __virtualname__


def ext_pillar(minion_id, pillar, enabled=True, *args, **kwargs):
    """
    Return the minion's views, its sealed preshared keys and the digest of its published facts, as far as there are any.

    No error leaves this function, since Salt would then refuse every state of the minion. Errors are logged, and the
    minion gets them in a key of its own.

    minion_id
        The minion whose pillar is compiled.

    pillar
        The pillar so far; it is not used.

    enabled
        False: return nothing.

    args, kwargs
        There are no other options: if some are given, that is an error as above.
    """
    if not enabled:
        return {}
    problems = [f"ext_pillar wgmesh has no option {option}: write 'wgmesh: true'" for option in (*args, *kwargs)]
    views = _read(problems, _views, minion_id, problems) or {}
    digest = _read(problems, _facts_digest, minion_id)
    boxes = {}
    for mesh, view in views.items():
        boxes |= _read(problems, psk_secrets.sealed_psks, __opts__, {mesh: view}) or {}
    failed = None if views else _read(problems, _failed_run)
    for problem in problems:
        log.error("wgmesh: the pillar of %s is incomplete: %s", minion_id, problem)
    found = {
        constants.PILLAR_VIEWS: views,
        constants.PILLAR_PSKS: boxes,
        constants.PILLAR_FACTS_DIGEST: digest,
        constants.PILLAR_ERROR: "; ".join(dict.fromkeys(problems)),
        constants.PILLAR_FAILED_RUN: failed,
    }
    return {key: value for key, value in found.items() if value}


def _views(minion_id, problems):
    return Ledger.of(__opts__).assignments(minion_id, problems)


def _failed_run():
    failed = Ledger.of(__opts__).failed_run()
    return {"reason": failed.reason, "run": failed.number} if failed else None


def _facts_digest(minion_id):
    published = inventory.mine_entry(salt.cache.factory(__opts__), minion_id)
    return facts_format.facts_digest(published) if published else None


def _read(problems, function, *args):
    """Return what *function* returns; None if it fails, and then *problems* gets the reason."""
    try:
        return function(*args)
    except (WgmeshError, OSError, salt.exceptions.SaltException) as error:
        problems.append(str(error))
    except Exception as error:
        log.exception("wgmesh: a record of the master is damaged")
        problems.append(f"a record of the master is damaged ({type(error).__name__}): its log says which")
    return None
