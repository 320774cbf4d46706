"""The ledger: a generation is there whole, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.types import Register
from saltext_wgmesh.master.ledger import KEPT_GENERATIONS, Head, Ledger


class Cut(Exception):
    """The power went."""


class MemoryCache:
    """Salt's cache as two levels of a dict; it fails at the write number *cut*."""

    def __init__(self) -> None:
        self.banks: dict[str, dict[str, Any]] = {}
        self.cut: int | None = None

    def store(self, bank: str, key: str, data: Any) -> None:
        if self.cut is not None:
            if self.cut == 0:
                raise Cut
            self.cut -= 1
        self.banks.setdefault(bank, {})[key] = data

    def fetch(self, bank: str, key: str) -> Any:
        return self.banks.get(bank, {}).get(key, {})

    def list(self, bank: str) -> list[str]:
        return list(self.banks.get(bank, {}))

    def flush(self, bank: str, key: str) -> None:
        self.banks.get(bank, {}).pop(key, None)


def view(mark: str) -> dict[str, Any]:
    return {"mark": mark, "digest": mark}


def publish(ledger: Ledger, generation: int, policy: int = 0, **nodes: str) -> None:
    head = Head(generation=generation, digests=dict(nodes), register=Register(numbers={"r": generation}))
    ledger.publish("wg0", head, {node: view(mark) for node, mark in nodes.items()}, {"policy": policy})


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


@pytest.fixture
def ledger(cache: MemoryCache) -> Ledger:
    return Ledger(cache)  # type: ignore[arg-type]


def test_what_is_published_is_what_nodes_and_runners_read(ledger):
    """Views by node, head and origin of the current generation."""
    publish(ledger, 1, 7, a="a1", b="b1")
    assert ledger.views("a") == {"wg0": {"mark": "a1", "digest": "a1", "generation": 1}}
    assert ledger.views("stranger") == {}
    assert ledger.head("wg0").digests == {"a": "a1", "b": "b1"}
    assert ledger.head("wg0").register.numbers == {"r": 1}
    assert ledger.origin("wg0", 1)["policy"] == 7


@pytest.mark.parametrize("cut", range(5))
def test_interrupted_at_any_write_every_node_sees_one_generation(cache, ledger, cut):
    """Five writes make a generation of two nodes (two records, origin, head, number): cut at each of them, both
    nodes still read the old views, or both the new ones; and the next publish is whole again."""
    publish(ledger, 1, a="a1", b="b1")
    cache.cut = cut
    with pytest.raises(Cut):
        publish(ledger, 2, a="a2", b="b2")
    cache.cut = None
    assert [ledger.views(node)["wg0"]["mark"] for node in "ab"] == ["a1", "b1"]
    known = ledger.head("wg0").generation
    assert known == (2 if cut == 4 else 1)
    assert [ledger.views(node)["wg0"]["mark"] for node in "ab"] == [f"a{known}", f"b{known}"]
    publish(ledger, known + 1, a="a3", b="b3")
    assert [ledger.views(node)["wg0"] for node in "ab"] == [
        {"mark": "a3", "digest": "a3", "generation": known + 1},
        {"mark": "b3", "digest": "b3", "generation": known + 1},
    ]


def test_a_node_that_did_not_change_keeps_its_view(ledger):
    """Only changed nodes are written; the others' last view counts on."""
    publish(ledger, 1, a="a1", b="b1")
    publish(ledger, 2, b="b2")
    assert ledger.views("a")["wg0"]["generation"] == 1
    assert ledger.views("b")["wg0"]["generation"] == 2


def test_old_generations_go_and_say_so(ledger):
    """The last ones are kept; an older one is an error that says how many are."""
    for generation in range(1, KEPT_GENERATIONS + 3):
        publish(ledger, generation, a=f"a{generation}")
    assert ledger.origin("wg0", 3)
    with pytest.raises(LedgerError, match="generation 2 is not in the ledger; the last 10 are"):
        ledger.origin("wg0", 2)


def test_the_last_generation_of_each_of_the_last_policies_stays(ledger):
    """However many follow by one policy, one can go back to those before."""
    for generation in range(1, 100):
        publish(ledger, generation, policy=(generation + 2) // 3 if generation < 50 else 0, a=f"a{generation}")
    assert ledger.generations("wg0") == [*range(24, 49, 3), 49, *range(90, 100)]


def test_a_deleted_node_is_forgotten_but_its_address_is_not(ledger):
    """Views and acknowledgements go; the register is untouched."""
    publish(ledger, 1, a="a1")
    ledger.acknowledge("a", {"digests": {"wg0": "a1"}})
    ledger.forget("a")
    assert ledger.views("a") == {}
    assert ledger.acknowledged("a") == {}
    assert ledger.nodes() == []
    assert ledger.head("wg0").register.numbers == {"r": 1}


def test_a_record_of_another_schema_is_refused(cache, ledger):
    """Nothing is read from it, nothing written over it."""
    publish(ledger, 1, a="a1")
    cache.banks["wgmesh/head"]["wg0"]["schema"] = 99
    with pytest.raises(LedgerError, match="schema 99"):
        ledger.head("wg0")
