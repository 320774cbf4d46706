"""Views: their plain form, and the identifiers of preshared keys in it."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.model.view import View
from tests.nodeviews import key, leaf


@pytest.mark.parametrize("name", ["../../etc/passwd", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef\n", 7])
def test_from_dict_invalid_psk_id_raises_view_error(name: object) -> None:
    """The identifier becomes the name of a file on the node."""
    raw = leaf().as_dict()
    raw["interfaces"][1]["peers"][0]["psk_ids"] = [name]
    with pytest.raises(ViewError, match=r"no identifier|not text"):
        View.from_dict(raw)


def test_from_dict_view_keeps_its_psk_ids() -> None:
    """There and back; and the digest covers them."""
    raw = leaf().as_dict()
    raw["interfaces"][1]["peers"][0]["psk_ids"] = ["0123456789abcdef"]
    raw["keys"] = [key(5)]
    view = View.from_dict(raw)
    peer = view.interfaces[1].peers[0]
    assert psk.psk_id_between(view, key(5), peer, peer.public_key) == "0123456789abcdef"
    assert psk.psk_id_between(view, key(6), peer, peer.public_key) is None
    assert list(psk.psk_ids(view)) == ["0123456789abcdef"]
    assert view.as_dict() == raw
    assert view.digest() != leaf().digest()
