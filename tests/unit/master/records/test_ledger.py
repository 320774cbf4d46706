"""The ledger: a generation is there whole, or not at all."""

from __future__ import annotations

import dataclasses

import pytest

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.inputs.facts import facts_from_dict
from saltext_wgmesh.master.records.acknowledgement import NO_ACK, Ack
from saltext_wgmesh.master.records.ledger import KEPT_GENERATIONS, Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead
from tests.unit.harness.fake_master import mine
from tests.unit.harness.generations import generation, marks, publish, raw_policy, view
from tests.unit.harness.memory_cache import Cut, MemoryCache


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


@pytest.fixture
def ledger(cache: MemoryCache) -> Ledger:
    return Ledger(cache)  # type: ignore[arg-type]


def test_published_generation_is_what_nodes_and_runners_read(ledger):
    """Assignments by node, head and inputs of the current generation."""
    publish(ledger, 1, 7, a=1401, b=1402)
    assert ledger.assignments("a") == {"wg0": {**view("a", 1401).as_dict(), "digest": "a1401", "generation": 1}}
    assert ledger.assignments("stranger") == {}
    assert ledger.head("wg0").digests == {"a": "a1401", "b": "b1402"}
    assert ledger.head("wg0").allocations.relay_numbers == {"r": 1}
    assert ledger.generation("wg0", 1).inputs.raw_policy == raw_policy(7)


@pytest.mark.parametrize("lans", [None, [], ["10.9.0.0/24"]])
def test_head_keeps_facts_whole(lans):
    """A node whose facts are gone is planned from those of the head: its neighbours see no difference."""
    facts = facts_from_dict("a", mine("a", lans=lans, networks=["10.9.0.0/24"], next_key=mine("x")["public_key"]))
    head = MeshHead(generation=1, facts={"a": facts})
    assert MeshHead.from_dict(head.as_dict()) == head


@pytest.mark.parametrize("cut", range(5))
def test_publish_cut_at_any_write_shows_one_generation(cache, ledger, cut):
    """Five writes make a generation of two nodes (inputs, two records, head, number).

    Cut at each of them, both nodes still read the old views, or both the new ones; and the next publish is whole again.
    """
    publish(ledger, 1, a=1, b=1)
    cache.cut = cut
    with pytest.raises(Cut):
        publish(ledger, 2, a=2, b=2)
    cache.cut = None
    assert marks(ledger, "a", "b") == [1, 1]
    known = ledger.head("wg0").generation
    assert known == (2 if cut == 4 else 1)
    assert marks(ledger, "a", "b") == [known, known]
    publish(ledger, known + 1, a=3, b=3)
    assert marks(ledger, "a", "b") == [3, 3]
    assert [ledger.assignments(node)["wg0"]["digest"] for node in "ab"] == ["a3", "b3"]
    assert [ledger.assignments(node)["wg0"]["generation"] for node in "ab"] == [known + 1, known + 1]


def test_unchanged_node_keeps_its_view(ledger):
    """Only changed nodes are written; the last view of the others stays current."""
    publish(ledger, 1, a=1, b=1)
    publish(ledger, 2, b=2)
    assert ledger.assignments("a")["wg0"]["generation"] == 1
    assert ledger.assignments("b")["wg0"]["generation"] == 2


def test_old_generation_is_dropped_with_a_clear_error(ledger):
    """The last ones are kept; asking for an older one is an error that says how many are."""
    for number in range(1, KEPT_GENERATIONS + 3):
        publish(ledger, number, a=number)
    assert ledger.generation("wg0", 3)
    with pytest.raises(LedgerError, match="generation 2 is not in the ledger, which keeps the last 10"):
        ledger.generation("wg0", 2)


def test_last_generation_of_each_policy_stays(ledger):
    """However many generations follow by one policy, one can go back to the policies before."""
    for number in range(1, 100):
        publish(ledger, number, (number + 2) // 3 if number < 50 else 0, a=number)
    assert ledger.generations("wg0") == [*range(24, 49, 3), 49, *range(90, 100)]


def test_generation_reads_as_it_was_written(ledger):
    """Every field of it, the retired mark included."""
    written = generation(3, reasons={"x": "no place"}, published_at=5.0, is_retired=True)
    publish(ledger, 1, a=1)
    ledger.publish("wg0", dataclasses.replace(ledger.head("wg0"), generation=2), {}, written)
    assert ledger.generation("wg0", 2) == written


def test_forgotten_node_keeps_its_address_only(ledger):
    """Assignments and acknowledgements go; the allocations are untouched."""
    publish(ledger, 1, a=1)
    ledger.save_ack("a", Ack(digests={"wg0": "a1"}))
    ledger.forget("a")
    assert ledger.assignments("a") == {}
    assert ledger.ack("a") == NO_ACK
    assert ledger.nodes() == []
    assert ledger.head("wg0").allocations.relay_numbers == {"r": 1}


@pytest.mark.parametrize("last", [0, 1])
def test_interrupted_forget_leaves_nothing_unlisted(cache, ledger, monkeypatch, last):
    """A minion id that is used again inherits no acknowledgement: the node is listed until its last record is gone."""
    publish(ledger, 1, a=1)
    ledger.save_ack("a", Ack(digests={"wg0": "a1"}))
    flush, left = cache.flush, [None] * last

    def cut(bank, key):
        if not left:
            raise Cut
        left.pop()
        flush(bank, key)

    monkeypatch.setattr(cache, "flush", cut)
    with pytest.raises(Cut):
        ledger.forget("a")
    assert ledger.nodes() == ["a"]


@pytest.mark.parametrize("schema", [0, 99, None, "1"])
def test_unknown_schema_is_refused(cache, ledger, schema):
    """Nothing is read from such a record, nothing written over it."""
    publish(ledger, 1, a=1)
    cache.banks["wgmesh/head"]["wg0"]["schema"] = schema
    with pytest.raises(LedgerError, match=f"schema {schema!r}"):
        ledger.head("wg0")
