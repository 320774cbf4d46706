"""A plan for people: as a table, as a picture, one path in sentences, and what changes for one node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saltext_wgmesh.core import addresses, reach, verify, wording
from saltext_wgmesh.core.types import Interface, Kind, Link, Member, MeshPolicy, Peer, Plan, Route, Topology, View

SHOWN_KEY = 8
"""Characters of a public key that are enough to tell two apart."""
SHOWN_PREFIXES = 3
"""Prefixes of one changed route that are spelled out."""

Rows = list[tuple[str, ...]]

# --- tables and pictures -------------------------------------------------------------------------------


def table(plan: Plan) -> str:
    """One line a node: role, site, addresses, its relays in order, how many peers; then who is left out, and why."""
    rows: Rows = [("node", "role", "site", "addresses", "relays", "peers")]
    for node, member in plan.members.items():
        peers = sum(len(i.peers) for i in plan.views[node].interfaces)
        prefixes = ", ".join((*member.addresses, *member.subnets))
        relays = ", ".join(member.homes)
        rows.append((node, member.role.value, member.site or "-", prefixes, relays or "-", str(peers)))
    lines = _columns(rows)
    lines += [f"left out: {node}: {reason}" for node, reason in plan.left_out.items()]
    return "\n".join(lines) + "\n"


def status(meshes: Mapping[str, Any]) -> str:
    """The runner's status as pages of text: one line a node, then what is down, who lags behind and who is left out."""
    lines: list[str] = []
    for mesh, told in meshes.items():
        lines.append(f"{mesh}: generation {told['generation']}, published {told['published_at']}")
        rows: Rows = [("node", "role", "relays", "links up", "not up", "runs it")]
        for node, row in told["nodes"].items():
            links = row.get("links", {})
            bad = [f"{name} {state}" for name, state in links.items() if not state.startswith("up")]
            up = f"{len(links) - len(bad)}/{len(links)}" if row.get("answers", True) else "no answer"
            acknowledged = "yes" if row["acknowledged"] else "NO"
            rows.append((node, row["role"], ", ".join(row["relays"]) or "-", up, "; ".join(bad) or "-", acknowledged))
        lines += _columns(rows)
        for name, trouble in told.get("trouble", {}).items():
            said = ", ".join(trouble["by"])
            good = f", good since {trouble['good_since']}" if trouble["good_since"] else ""
            lines.append(
                f"counts as {trouble['counts_as']}: {name}, down since {trouble['since']} say {said}{good}; "
                f"{trouble['times']} times, held for {trouble['hold']:g} s"
            )
        lines += [f"not yet at the last preshared keys: {node}" for node in told.get("other_preshared_key", ())]
        lines += [f"drained: {node}" for node in told.get("drained", ())]
        lines += [f"kept until others carry: {link}" for link in told.get("rollout", {}).get("waits_for", ())]
        lines += [f"gets another key: {node}: {reason}" for node, reason in told.get("rotation", {}).items()]
        lines += [f"left out: {node}: {reason}" for node, reason in told["left_out"].items()]
        if held := told.get("held"):
            lines.append(f"HELD: {held['why']}; {held['do']}")
        if back := told.get("rolled_back"):
            why = f"{back['why']}; " if "why" in back else ""
            lines.append(f"rolled back to the policy of generation {back['generation']}: {why}{back['do']}")
    return "\n".join(lines) + "\n"


def _columns(rows: Rows) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def dot(plan: Plan) -> str:
    """The mesh in Graphviz' language: a box is a relay, a dashed line an uplink in reserve, a bold one a trunk."""
    lines = [f"graph {_quoted(plan.mesh)} {{", "  layout=fdp; node [shape=ellipse];"]
    for i, (site, nodes) in enumerate(_by_site(plan).items()):
        inner = "  "
        if site is not None:
            lines.append(f"  subgraph cluster_{i} {{ label={_quoted(site)};")
            inner = "    "
        for node in nodes:
            shape = " [shape=box]" if plan.members[node].is_relay else ""
            lines.append(f"{inner}{_quoted(node)}{shape};")
        if site is not None:
            lines.append("  }")
    styles = {"trunk": " [style=bold]", "reserve": " [style=dashed]"}
    for link in plan.links:
        lines.append(f"  {_quoted(link.a)} -- {_quoted(link.b)}{styles.get(_line(plan, link), '')};")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(plan: Plan) -> str:
    """The mesh in Mermaid's language, which many wikis draw: signs as in ``dot``."""
    ids = {node: f"n{i}" for i, node in enumerate(plan.members)}
    lines = ["flowchart LR"]
    for i, (site, nodes) in enumerate(_by_site(plan).items()):
        if site is not None:
            lines.append(f'  subgraph s{i}["{_escaped(site)}"]')
        for node in nodes:
            left, right = ("[[", "]]") if plan.members[node].is_relay else ("(", ")")
            lines.append(f'    {ids[node]}{left}"{_escaped(node)}"{right}')
        if site is not None:
            lines.append("  end")
    signs = {"trunk": "===", "reserve": "-.-"}
    lines += [f"  {ids[link.a]} {signs.get(_line(plan, link), '---')} {ids[link.b]}" for link in plan.links]
    return "\n".join(lines) + "\n"


def _by_site(plan: Plan) -> dict[str | None, list[str]]:
    """Site → its nodes, sorted; those at no site last."""
    found: dict[str | None, list[str]] = {}
    for node, member in sorted(plan.members.items(), key=lambda m: (m[1].site is None, m[1].site or "", m[0])):
        found.setdefault(member.site, []).append(node)
    return found


def _line(plan: Plan, link: Link) -> str:
    if link.kind is Kind.TRUNK:
        return "trunk"
    if link.kind is Kind.UPLINK and plan.members[link.a].homes[0] != link.b:
        return "reserve"
    return "plain"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;")


# --- one path ------------------------------------------------------------------------------------------


def explain(plan: Plan, mesh: MeshPolicy, a: str, b: str) -> dict[str, Any]:
    """The path of packets from member *a* to member *b* with nothing down, and why it is that one.

    ``path`` are the nodes on it, both ends included; ``why`` is a list of sentences; ``text`` says all of it.
    KeyError if one is no member.
    """
    source, target = plan.members[a], plan.members[b]
    if a == b:
        return {"text": f"{a} is one node: its packets to itself never leave it.", "path": [a], "why": []}
    families = {":" in address for address in source.addresses}
    address = next((x for x in target.addresses if (":" in x) in families), None)
    if address is None:
        why = [f"{a} and {b} have no address family in common in this mesh."]
        return {"text": " ".join(why), "path": [], "why": why}
    walk = verify.walk(plan, a, address)
    why = [*_why(mesh, source, target), *([] if walk.delivered else [f"{walk.detail}."])]
    path = f"{' → '.join(walk.hops)}{'' if walk.delivered else ' → not delivered'}"
    return {"text": " ".join([f"{path}.", *why]), "path": list(walk.hops), "why": why}


def _why(mesh: MeshPolicy, source: Member, target: Member) -> list[str]:
    if source.is_relay and target.is_relay:
        return ["All relays are linked with each other, by trunks."]
    if source.is_relay or target.is_relay:
        leaf, relay = (target, source) if source.is_relay else (source, target)
        if relay.node in leaf.homes:
            return [f"{relay.node} is one of {leaf.node}'s relays.", _choice(mesh, leaf)]
        return [f"{relay.node} is none of {leaf.node}'s relays, and leaves link with no others.", _choice(mesh, leaf)]
    verdict = reach.verdict(mesh, source, target)
    if verdict.direct:
        return [f"They are linked directly: {verdict.reason}."]
    return [f"They are not linked directly: {verdict.reason}.", _choice(mesh, source), _choice(mesh, target)]


def _choice(mesh: MeshPolicy, leaf: Member) -> str:
    """Which relays a leaf has, and why those."""
    own = mesh.sites[leaf.site].relays if leaf.site is not None and leaf.site in mesh.sites else ()
    linked = {n for pair in mesh.links if leaf.node in pair for n in pair}
    words = []
    for relay in leaf.homes:
        if relay in own:
            words.append(f"{relay} (of site {leaf.site})")
        elif relay in linked:
            words.append(f"{relay} (the policy's links name it)")
        elif mesh.topology is Topology.FULL:
            words.append(f"{relay} (topology full uses all)")
        else:
            words.append(f"{relay} (chosen among all relays, evenly)")
    return f"{leaf.node}'s relays, in order: {', '.join(words)}."


# --- what changes --------------------------------------------------------------------------------------


def view_diff(old: View | None, new: View | None) -> list[str]:
    """What changes for one node, a line each: ``+`` comes, ``-`` goes, ``~`` becomes another. Keys are shortened."""
    return [
        *_values(old, new),
        *_changes("interface ", _interfaces(old), _interfaces(new)),
        *_peer_changes(_peers(old), _peers(new)),
        *_route_changes(_routes(old), _routes(new)),
    ]


def _values(old: View | None, new: View | None) -> Iterator[str]:
    yield from _changes("", _words(old), _words(new))


def _words(view: View | None) -> dict[str, str]:
    """What holds for the whole node, in words."""
    if view is None:
        return {}
    return {
        "role": view.role.value,
        "addresses": ", ".join(view.addresses),
        "networks": ", ".join(view.networks),
        "forwarding": "on" if view.forward else "off",
        "mtu": str(view.mtu),
        **({"turn to key": view.turn_to[:SHOWN_KEY]} if view.turn_to else {}),
    }


def _line_of(name: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"+ {name}: {new}"
    return f"- {name}: {old}" if new is None else f"~ {name}: {old} → {new}"


def _interfaces(view: View | None) -> dict[str, str]:
    return {} if view is None else {i.name: _interface_words(i) for i in view.interfaces}


def _interface_words(interface: Interface) -> str:
    return f"{interface.kind.value}, port {interface.listen_port or 'any'}"


def _peers(view: View | None) -> dict[str, Peer]:
    return {} if view is None else {f"{p.node} on {i.name}": p for i in view.interfaces for p in i.peers}


def _peer_words(peer: Peer) -> dict[str, str]:
    return {
        "key": peer.public_key[:SHOWN_KEY],
        "endpoint": peer.endpoint or "none",
        "keepalive": str(peer.keepalive or "off"),
        "allowed": " ".join(peer.allowed_ips),
        **({"next key": peer.next_key[:SHOWN_KEY]} if peer.next_key else {}),
        **({wording.PRESHARED: "set"} if peer.preshared else {}),
    }


def _peer_changes(old: Mapping[str, Peer], new: Mapping[str, Peer]) -> Iterator[str]:
    """A peer that comes or goes in full, of one that stays only what changes."""
    for name in sorted({*old, *new}):
        before, after = (_peer_words(side[name]) if name in side else {} for side in (old, new))
        if before and after:
            words = wording.secrecy(old[name].preshared, new[name].preshared)
            before[wording.PRESHARED], after[wording.PRESHARED] = words
            yield from _changes(f"peer {name}: ", before, after)
        else:
            told = ", ".join(f"{part} {value}" for part, value in (before or after).items())
            yield _line_of(f"peer {name}", told if before else None, told if after else None)


def _changes(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """A line for each key whose words differ, in order of *old*, then of *new*."""
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            yield _line_of(f"{what}{key}", old.get(key), new.get(key))


def _routes(view: View | None) -> dict[str, str]:
    return {} if view is None else {prefix: _route_words(r) for r in view.routes for prefix in r.prefixes}


def _route_words(route: Route) -> str:
    words = f"via {', '.join(route.via)}" if route.via else "unreachable"
    if route.detour:
        words += ", else any relay"
    if route.from_trunk:
        words += f"; from a trunk via {', '.join(route.from_trunk)}"
    return words


def _route_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """One line for all prefixes that change alike."""
    alike: dict[tuple[str | None, str | None], list[str]] = {}
    for prefix in sorted({*old, *new}, key=addresses.prefix_key):
        if old.get(prefix) != new.get(prefix):
            alike.setdefault((old.get(prefix), new.get(prefix)), []).append(prefix)
    for (before, after), prefixes in alike.items():
        more = len(prefixes) - SHOWN_PREFIXES
        shown = ", ".join(prefixes[:SHOWN_PREFIXES]) + (f" and {more} more" if more > 0 else "")
        yield _line_of(f"route {shown}", before, after)
