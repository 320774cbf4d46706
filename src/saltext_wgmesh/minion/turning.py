"""The end of a key's rotation on this node: the old key goes when nothing of it is in use any more."""

from __future__ import annotations

import logging

from saltext_wgmesh.minion import keys, observe, store
from saltext_wgmesh.minion.host import Host

log = logging.getLogger(__name__)


def finish(host: Host) -> bool:
    """The next key is the present one if every interface of every mesh runs it already; whether it has become so.

    Until then both files stay, and an interface that comes up at boot runs the old one, which the neighbours take too.
    """
    keys.forget_lost(host)
    following = keys.next_key(host)
    if following is None or observe.running_keys(host, store.owned_interfaces(host)) != {following}:
        return False
    keys.finish(host)
    log.info("wgmesh: this node runs its next key, %s, and the one before is destroyed", following)
    return True
