"""What a node of commit b0b7e5f keeps on disk is read without loss; the values stand here, written out.

``tests/unit/recorded_node/README.md`` says what is in it.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import RolledBack
from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.minion.apply import journal, preconditions
from saltext_wgmesh.minion.state import keys, store
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.state.view_result import ViewResult
from tests.unit.harness.fake_watcher import NEW, with_endpoint
from tests.unit.harness.fakehost import FakeHost, Kernel
from tests.unit.harness.recorded import PRESHARED_KEY, former_digest, lay_out_node

AT = 1_790_000_000.0
APPLIED = "59825cab0e7a50910e6784f4c83dd2f9eb7cb945438749ada693c98847a10a6b"
ROLLED_BACK = "9eacbb5a929f336bdbe42a4c75f2fda97957041b5fec9aaa387cc76a8891a277"
UNFINISHED = "5b40778f6936da4a9b312b631950e1c3acac9fdc5e65745255f26d108156cf80"
OTHER_MESH = "dba42271f36db2fabdc504050789b99de916c34536ef2de34f3670fa67ebd26c"


NEW_APPLIED = "54498faf1aca0edc8d1d97617c07cd6d4767dea512a6bfb95abc7d0ac98d7d9d"
NEW_ROLLED_BACK = "82d63f5e6a9b85310fd1fe67bf77e0fb18707e5228de2f9d48331f53f830d880"
NEW_UNFINISHED = "6db458ea8f5a428023174f264864de9e2ed1b189ef38eb44d860c2d3a03103e1"
NEW_OTHER_MESH = "e096af32ebe709c978f0e704d237f9df180784a98f9f0e7530ea5867cc8f9f3a"
"""The digests of the same views in schema 4: a digest covers the plain form, whose keys are new."""


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """The recorded node; its kernel is empty."""
    lay_out_node(tmp_path)
    return FakeHost.below(tmp_path, Kernel())


@pytest.fixture
def wg0(host: FakeHost) -> Store:
    return Store(host=host, mesh="wg0")


def test_meshes_of_a_node_are_known(host):
    assert store.meshes(host) == ("wg0", "wg1")
    assert store.owned_interfaces(host) == {"wg0", "wg0-u1", "wg0-u2", "wg1", "wg1-u3"}


def test_view_and_previous_view_are_kept(host, wg0):
    view, previous = wg0.view(), wg0.previous()
    assert view is not None
    assert previous is not None
    assert (former_digest(view), view.digest()) == (APPLIED, NEW_APPLIED)
    assert (view.node, view.addresses) == ("n5", ("10.100.0.5", "fd00:64::5"))
    assert [(i.name, i.listen_port) for i in view.interfaces] == [("wg0", 51822), ("wg0-u1", 0), ("wg0-u2", 0)]
    assert previous.interfaces[0].listen_port == 51821
    other = Store(host=host, mesh="wg1").view()
    assert other is not None
    assert (former_digest(other), other.digest()) == (OTHER_MESH, NEW_OTHER_MESH)
    assert other.addresses == ("10.101.0.5", "fd00:65::5")


def test_owned_devices_and_prefixes_are_kept(wg0):
    """With what the apply that was killed was about to make."""
    owned = wg0.owned()
    assert owned.interfaces == {"wg0", "wg0-u1", "wg0-u2"}
    assert owned.prefixes == {"10.100.0.0/16", "10.100.0.7/32", "fd00:64::/64"}


def test_rolled_back_view_is_remembered(wg0):
    taken = wg0.rolled_back()
    assert taken is not None
    assert (taken.digest, taken.at) == (ROLLED_BACK, AT)
    assert taken.reason == "n1 is not heard any more after the changes of wg0-u1"


def test_rolled_back_view_of_former_schema_is_retried(wg0, monkeypatch):
    """Its record names the digest that the view had in schema 3; the same view has another digest in this schema.

    So the record refuses nothing: the node applies the view once more, and rolls it back again if it still breaks it.
    """
    applied = wg0.view()
    assert applied is not None
    view = with_endpoint(applied, 1, NEW)
    assert (former_digest(view), view.digest()) == (ROLLED_BACK, NEW_ROLLED_BACK)
    monkeypatch.setattr(preconditions.time, "time", lambda: AT + 30)
    preconditions.refuse_if_recently_rolled_back(wg0, view)
    taken = wg0.rolled_back()
    assert taken is not None
    wg0.set_rolled_back(replace(taken, digest=view.digest()))
    with pytest.raises(RolledBack, match="n1 is not heard any more"):
        preconditions.refuse_if_recently_rolled_back(wg0, view)


def test_killed_apply_can_be_recovered(host, wg0):
    """The node goes back to the view that it held, if the new one broke it."""
    assert journal.interrupted(host) == ["wg0"]
    found = journal.read_pending(wg0)
    assert found is not None
    assert (found.requested_digest, former_digest(found.view)) == (UNFINISHED, UNFINISHED)
    assert found.view.digest() == NEW_UNFINISHED
    assert found.boot_id == "00000000-0000-4000-8000-000000000000"
    assert found.attempt.old_view is not None
    assert found.attempt.old_view == wg0.view()
    assert found.attempt.old_view.digest() == NEW_APPLIED
    assert found.attempt.older_view == wg0.previous()
    assert (found.attempt.baseline.links_up, found.attempt.baseline.master) == ({"n1", "n2", "n7"}, None)
    assert found.attempt.required == {"n2"}


def test_outcomes_of_the_last_offers_are_kept(host):
    told = store.outcomes(host)
    assert told["wg1"] == ViewResult(mesh="wg1", digest=OTHER_MESH, generation=1)
    assert (told["wg0"].digest, told["wg0"].generation, told["wg0"].rolled_back) == (APPLIED, 4, True)
    assert store.published_underlay(host) == ("192.0.2.5",)


def test_keys_of_a_node_stay_where_they_are(host, wg0):
    """Its own, the next one, and the preshared one under its identifier; readable by their owner only."""
    view = wg0.view()
    assert view is not None
    assert view.keys == (keys.public_key(host),)
    assert keys.next_key(host) is not None
    name = str(psk.psk_id(PRESHARED_KEY))
    assert [path.name for path in wg0.psk_dir.iterdir()] == [name]
    assert view.interfaces[0].peers[0].psk_ids == (name,)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (host.key_file, keys.next_file(host), wg0.psk_dir / name)}
    assert modes == {0o600}
