"""Which node a public key belongs to, if several nodes publish it.

Facts are claims, so a node may publish any key that it has seen. A key belongs to the node that published it first
under its present Salt key: no other node can have known it before.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from saltext_wgmesh.core.inputs.converters import name_in_path
from saltext_wgmesh.core.model.facts import Facts, Rejection

KeyOwners = Mapping[str, str | None]
"""Public key → the node that published it first; None: the records name several nodes, and none of them gets it."""

_MAX_NAMES = 3
"""Other nodes that one message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDispute:
    """A key that a node publishes and does not get."""

    node: str
    key: str
    owner: str | None
    """None: several nodes published the key at the same time."""
    others: tuple[str, ...]
    """The owner and the other nodes that publish the key, sorted."""

    def rejection(self, *, is_next: bool) -> Rejection:
        """Return the rejection for the operator; *is_next* says that the key is only the node's next one.

        The command gives the node another key, and removes what the node runs with the present one.
        """
        listed = ", ".join(name_in_path(other) for other in self.others[:_MAX_NAMES]) or "another node"
        more = f" and {len(self.others) - _MAX_NAMES} more" if len(self.others) > _MAX_NAMES else ""
        which = "next public" if is_next else "public"
        if self.owner:
            owner = name_in_path(self.owner)
            claim = f", and {owner} published it first" if len(self.others) > 1 else ", which published it first"
            gone = f", or delete the Salt key of {owner} if that node is gone: salt-key -d {owner}"
        else:
            claim, gone = "", ""
        return Rejection(
            node=self.node,
            reason=f"its {which} key is also that of {listed}{more}{claim}",
            remedy=f"give the copy a key of its own: {replace_command(self.node)}{gone}",
        )


def replace_command(node: str) -> str:
    """Return the master's command that gives *node* another key."""
    return f"salt {name_in_path(node)} wgmesh.replace_key"


def key_owners(levels: Iterable[Iterable[Facts]]) -> dict[str, str | None]:
    """Return the owner of each key in *levels*, which are recorded facts of nodes, the strongest claims first.

    A level decides only on keys that no level before it has.
    """
    owners: dict[str, str | None] = {}
    for level in levels:
        found: dict[str, str | None] = {}
        for facts in level:
            for key in facts.keys:
                found[key] = facts.node if found.get(key, facts.node) == facts.node else None
        owners = {**found, **owners}
    return owners


def key_disputes(facts: Mapping[str, Facts], owners: KeyOwners, members: Container[str] = ()) -> Iterator[KeyDispute]:
    """Yield a dispute for each node of *facts* and each of its keys that belongs to another node.

    Among nodes that publish a key at the same time, for the first time, one of *members* goes before nodes without a
    place in the mesh. Two such members both lose it: nothing says which of them is the copy.
    """
    claims: dict[str, list[str]] = {}
    for node in sorted(facts):
        for key in facts[node].keys:
            claims.setdefault(key, []).append(node)
    for key, nodes in claims.items():
        owner = owners[key] if key in owners else _first(nodes, members)
        others = {*nodes, *([owner] if owner else ())}
        # One node that alone publishes a key of which records name several nodes does not get it either.
        yield from (
            KeyDispute(node=node, key=key, owner=owner, others=tuple(sorted(others - {node})))
            for node in nodes
            if node != owner
        )


def _first(nodes: list[str], members: Container[str]) -> str | None:
    best = [node for node in nodes if node in members] or nodes
    return best[0] if len(best) == 1 else None
