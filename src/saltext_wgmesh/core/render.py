"""Texts that an operator reads: a plan as table and graph, one path explained, and the changes of one node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.device import descriptions
from saltext_wgmesh.core.model.plan import Link, Member, Plan
from saltext_wgmesh.core.model.policy import MeshPolicy, Topology
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View
from saltext_wgmesh.core.planning import addresses, direct_links
from saltext_wgmesh.core.proof import packet_walk

KEY_LENGTH_SHOWN = 8
"""Characters of a public key that are enough to distinguish two keys."""
MAX_PREFIXES_SHOWN = 3
"""Prefixes that are listed of one changed route; the others are counted."""

Rows = list[tuple[str, ...]]

# --- tables --------------------------------------------------------------------------------------------


def render_table(plan: Plan) -> str:
    """Return one line a node: role, site, addresses, relays in order, peers; then the unplaced nodes, and why."""
    rows: Rows = [("node", "role", "site", "addresses", "relays", "peers")]
    for node, member in plan.members.items():
        peers = sum(len(i.peers) for i in plan.views[node].interfaces)
        prefixes = ", ".join((*member.addresses, *member.subnets))
        relays = ", ".join(member.relays)
        rows.append((node, member.role.value, member.site or "-", prefixes, relays or "-", str(peers)))
    lines = _columns(rows)
    lines += [f"unplaced: {node}: {reason}" for node, reason in plan.unplaced.items()]
    return "\n".join(lines) + "\n"


def render_status(meshes: Mapping[str, Any]) -> str:
    """Return the runner's status as text: one line a node, then outages, laggards and unplaced nodes.

    *meshes* is mesh → its status, as ``salt-run wgmesh.status`` returns it.
    """
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
        lines += [f"DOWN: {name}" for name in told.get("down", ())]
        rows_with_faults = ((n, row) for n, row in told["nodes"].items() if "relay_faults" in row)
        lines += [f"{row['role']} {n}: {fault}" for n, row in rows_with_faults for fault in row["relay_faults"]]
        for name, outage in told.get("outages", {}).items():
            reporters = ", ".join(outage["reporters"])
            up = f", up since {outage['up_since']}" if outage["up_since"] else ""
            lines.append(
                f"counts as {outage['counts_as']}: {name}, down since {outage['since']} by {reporters}{up}; "
                f"{outage['flaps']} flaps, hold-down {outage['hold_down']:g} s"
            )
        lines += [f"{node}: {why}" for node, why in told.get("clocks", {}).items()]
        lines += [f"not yet at the last preshared keys: {node}" for node in told.get("psk_laggards", ())]
        lines += [f"drained: {node}" for node in told.get("drained", ())]
        lines += [f"kept until others carry: {link}" for link in told.get("transition", {}).get("waits_for", ())]
        lines += [f"gets another key: {node}: {reason}" for node, reason in told.get("rotation", {}).items()]
        lines += [f"unplaced: {node}: {reason}" for node, reason in told["unplaced"].items()]
        if asymmetric := told.get("asymmetric_pairs"):
            lines.append(f"asymmetric: {asymmetric}")
        if held := told.get("held_loss"):
            lines.append(f"HELD LOSS: {held['why']}; {held['remedy']}")
        if back := told.get("policy_pin"):
            why = f"{back['why']}; " if "why" in back else ""
            lines.append(f"rolled back to the policy of generation {back['generation']}: {why}{back['remedy']}")
    return "\n".join(lines) + "\n"


def _columns(rows: Rows) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# --- graphs --------------------------------------------------------------------------------------------


def dot(plan: Plan) -> str:
    """Return the mesh in the language of Graphviz: boxes are relays, dashed lines standby uplinks, bold ones trunks."""
    lines = [f"graph {_quoted(plan.mesh)} {{", "  layout=fdp; node [shape=ellipse];"]
    for i, (site, nodes) in enumerate(_by_site(plan).items()):
        indent = "  "
        if site is not None:
            lines.append(f"  subgraph cluster_{i} {{ label={_quoted(site)};")
            indent = "    "
        for node in nodes:
            shape = " [shape=box]" if plan.members[node].is_relay else ""
            lines.append(f"{indent}{_quoted(node)}{shape};")
        if site is not None:
            lines.append("  }")
    styles = {"trunk": " [style=bold]", "standby": " [style=dashed]"}
    for link in plan.links:
        lines.append(f"  {_quoted(link.a)} -- {_quoted(link.b)}{styles.get(_line_style(plan, link), '')};")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(plan: Plan) -> str:
    """Return the mesh in the language of Mermaid, which many wikis draw, with the same signs as ``dot``."""
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
    signs = {"trunk": "===", "standby": "-.-"}
    lines += [f"  {ids[link.a]} {signs.get(_line_style(plan, link), '---')} {ids[link.b]}" for link in plan.links]
    return "\n".join(lines) + "\n"


def _by_site(plan: Plan) -> dict[str | None, list[str]]:
    """Return site → its nodes, sorted; nodes without a site last."""
    nodes: dict[str | None, list[str]] = {}
    for node, member in sorted(plan.members.items(), key=lambda m: (m[1].site is None, m[1].site or "", m[0])):
        nodes.setdefault(member.site, []).append(node)
    return nodes


def _line_style(plan: Plan, link: Link) -> str:
    """Return ``trunk``, ``standby`` for an uplink to a relay that the leaf takes first for nothing, or ``plain``."""
    if link.kind is Kind.TRUNK:
        return "trunk"
    leaf = plan.members[link.a]
    if link.kind is Kind.UPLINK and link.b not in (leaf.spread_relays or leaf.relays[:1]):
        return "standby"
    return "plain"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;")


# --- one path ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPath:
    """The path of packets between two members with nothing down, and the reasons for it."""

    hops: tuple[str, ...]
    """Its nodes, both ends included; empty if there is none."""
    hops_ipv6: tuple[str, ...] = ()
    """The nodes on the path of IPv6 packets if *hops* are those of IPv4 packets and differ; else empty."""
    why: tuple[str, ...]
    """Sentences."""

    def as_dict(self) -> dict[str, list[str]]:
        """Return plain values, as ``wgmesh.explain`` returns them."""
        ipv6 = {"path_ipv6": list(self.hops_ipv6)} if self.hops_ipv6 else {}
        return {"path": list(self.hops), **ipv6, "why": list(self.why)}


def explain_path(plan: Plan, mesh: MeshPolicy, a: str, b: str) -> ExplainedPath:
    """Return the path of packets from member *a* to member *b*; KeyError if one is not a member."""
    source, target = plan.members[a], plan.members[b]
    if a == b:
        return ExplainedPath(hops=(a,), why=(f"{a} is one node: its packets to itself never leave it.",))
    address = packet_walk.shared_address(plan, a, b)
    if address is None:
        return ExplainedPath(hops=(), why=(f"{a} and {b} have no address family in common in this mesh.",))
    walk = packet_walk.walk(plan, a, address)
    undelivered = [] if walk.delivered else [f"It is not delivered: {walk.detail}."]
    other = packet_walk.shared_address(plan, a, b, 6)
    hops_ipv6 = packet_walk.walk(plan, a, other).hops if other else ()
    return ExplainedPath(
        hops=walk.hops,
        hops_ipv6=() if hops_ipv6 == walk.hops else hops_ipv6,
        why=(*_reasons(mesh, source, target), *undelivered),
    )


def _reasons(mesh: MeshPolicy, source: Member, target: Member) -> list[str]:
    if source.is_relay and target.is_relay:
        return ["All relays are linked with each other, by trunks."]
    if source.is_relay or target.is_relay:
        leaf, relay = (target, source) if source.is_relay else (source, target)
        if relay.node in leaf.relays:
            return [f"{relay.node} is one of {leaf.node}'s relays.", _relays_of(mesh, leaf)]
        return [
            f"{relay.node} is none of {leaf.node}'s relays, and leaves link with no others.",
            _relays_of(mesh, leaf),
        ]
    verdict = direct_links.direct_link_verdict(mesh, source, target)
    if verdict.direct:
        return [f"They are linked directly: {verdict.reason}."]
    return [f"They are not linked directly: {verdict.reason}.", _relays_of(mesh, source), _relays_of(mesh, target)]


def _relays_of(mesh: MeshPolicy, leaf: Member) -> str:
    """Return a sentence on the leaf's relays, with the reason for each."""
    own = mesh.sites[leaf.site].relays if leaf.site is not None and leaf.site in mesh.sites else ()
    linked = {n for pair in mesh.links if leaf.node in pair for n in pair}
    relays = []
    for relay in leaf.relays:
        if relay in own:
            relays.append(f"{relay} (of site {leaf.site})")
        elif relay in linked:
            relays.append(f"{relay} (the policy's links name it)")
        elif mesh.topology is Topology.FULL:
            relays.append(f"{relay} (topology full uses all)")
        else:
            relays.append(f"{relay} (chosen among all relays, evenly)")
    if leaf.spread_relays:
        spread = " and ".join(leaf.spread_relays)
        return f"{leaf.node} takes {spread} first, by destination; its relays: {', '.join(relays)}."
    return f"{leaf.node}'s relays, in order: {', '.join(relays)}."


# --- changes of one node -------------------------------------------------------------------------------


def view_diff(old: View | None, new: View | None) -> list[str]:
    """Return the changes of one node, one a line: ``+`` is added, ``-`` removed, ``~`` changed. Keys are shortened."""
    return [
        *_changes("", _node_values(old), _node_values(new)),
        *_changes("interface ", _interfaces(old), _interfaces(new)),
        *_peer_changes(_peers(old), _peers(new)),
        *_route_changes(_routes(old), _routes(new)),
    ]


def _node_values(view: View | None) -> dict[str, str]:
    """Return the values of the whole node as text."""
    if view is None:
        return {}
    return {
        "role": view.role.value,
        "addresses": ", ".join(view.addresses),
        "networks": ", ".join(view.networks),
        "forwarding": "on" if view.forward else "off",
        "mtu": str(view.mtu),
        **({"activate key": view.activate_key[:KEY_LENGTH_SHOWN]} if view.activate_key else {}),
    }


def _change_line(name: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"+ {name}: {new}"
    return f"- {name}: {old}" if new is None else f"~ {name}: {old} → {new}"


def _interfaces(view: View | None) -> dict[str, str]:
    return {} if view is None else {i.name: _interface_text(i) for i in view.interfaces}


def _interface_text(interface: Interface) -> str:
    return f"{interface.kind.value}, port {interface.listen_port or 'any'}"


def _peers(view: View | None) -> dict[str, Peer]:
    return {} if view is None else {f"{p.node} on {i.name}": p for i in view.interfaces for p in i.peers}


def _peer_values(peer: Peer) -> dict[str, str]:
    return {
        "key": peer.public_key[:KEY_LENGTH_SHOWN],
        "endpoint": peer.endpoint or "none",
        "keepalive": str(peer.keepalive or "off"),
        "allowed": " ".join(peer.allowed_ips),
        **({"next key": peer.next_key[:KEY_LENGTH_SHOWN]} if peer.next_key else {}),
        **({descriptions.PSK_ITEM: "set"} if peer.psk_ids else {}),
    }


def _peer_changes(old: Mapping[str, Peer], new: Mapping[str, Peer]) -> Iterator[str]:
    """Yield a line for a peer that is added or removed, and one for each changed value of another."""
    for name in sorted({*old, *new}):
        before, after = (_peer_values(side[name]) if name in side else {} for side in (old, new))
        if before and after:
            # The views have identifiers of the keys, which the texts must not show.
            psk_texts = descriptions.describe_psk(old[name].psk_ids, new[name].psk_ids)
            before[descriptions.PSK_ITEM], after[descriptions.PSK_ITEM] = psk_texts
            yield from _changes(f"peer {name}: ", before, after)
        else:
            text = ", ".join(f"{part} {value}" for part, value in (before or after).items())
            yield _change_line(f"peer {name}", text if before else None, text if after else None)


def _changes(prefix: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each key whose values differ, in order of *old*, then of *new*."""
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            yield _change_line(f"{prefix}{key}", old.get(key), new.get(key))


def _routes(view: View | None) -> dict[str, str]:
    return {} if view is None else {prefix: _route_text(r) for r in view.routes for prefix in r.prefixes}


def _route_text(route: Route) -> str:
    text = f"via {', '.join(route.via)}" if route.via else "unreachable"
    if route.detour:
        text += ", else any relay"
    if route.from_trunk:
        text += f"; from a trunk via {', '.join(route.from_trunk)}"
    return text


def _route_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for all prefixes with the same change."""
    by_change: dict[tuple[str | None, str | None], list[str]] = {}
    for prefix in sorted({*old, *new}, key=addresses.prefix_key):
        if old.get(prefix) != new.get(prefix):
            by_change.setdefault((old.get(prefix), new.get(prefix)), []).append(prefix)
    for (before, after), prefixes in by_change.items():
        more = len(prefixes) - MAX_PREFIXES_SHOWN
        shown = ", ".join(prefixes[:MAX_PREFIXES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        yield _change_line(f"route {shown}", before, after)
