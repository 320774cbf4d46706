"""Views of one node, for tests of the node's side: the smallest that have each kind of interface."""

from __future__ import annotations

import base64
from dataclasses import replace

from saltext_wgmesh.core.model.policy import Bfd, Role
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View

NETWORKS = ("10.100.0.0/16", "fd00:64::/64")


def key(number: int) -> str:
    """The public key of node *number*."""
    return base64.b64encode(bytes([number]) * 32).decode()


def peer(
    number: int,
    *allowed_ips: str,
    endpoint: str | None = None,
    keepalive: int = 0,
    public_key: str | None = None,
    preshared: str | None = None,
) -> Peer:
    """Node *number* (``n7``) as a peer; by default allowed its host address, 10.100.0.7. Its preshared key is named by
    an identifier."""
    return Peer(
        node=f"n{number}",
        address=f"10.100.0.{number}",
        public_key=public_key or key(number),
        endpoint=endpoint,
        keepalive=keepalive,
        allowed_ips=allowed_ips or (f"10.100.0.{number}/32",),
        psk_ids=(preshared,) if preshared else (),
    )


def leaf(
    *,
    direct: tuple[Peer, ...] = (),
    relays: tuple[int, ...] = (1, 2),
    mesh: str = "wg0",
    via: int = 1,
    port: int = 51820,
) -> View:
    """n5, a leaf of *relays*, with *direct* neighbours; the mesh goes by relay *via*."""
    uplinks = tuple(
        Interface(
            name=f"{mesh}-u{r}",
            kind=Kind.UPLINK,
            listen_port=0,
            peers=(peer(r, *NETWORKS, endpoint=f"192.0.2.{r}0:51820", keepalive=25),),
        )
        for r in relays
    )
    order = (f"n{via}", *(f"n{r}" for r in relays if r != via)) if relays else ()
    return View(
        mesh=mesh,
        node="n5",
        role=Role.LEAF,
        addresses=("10.100.0.5", "fd00:64::5"),
        networks=NETWORKS,
        forward=False,
        mtu=1420,
        bfd=Bfd(),
        interfaces=(Interface(name=mesh, kind=Kind.ACCESS, listen_port=port, peers=direct), *uplinks),
        routes=(
            Route(prefixes=NETWORKS, via=order),
            *(Route(prefixes=p.allowed_ips, via=(p.node,)) for p in direct),
        ),
    )


def relay(*, leaves: tuple[Peer, ...] = (), trunks: tuple[int, ...] = (2,), mesh: str = "wg0") -> View:
    """n1, a relay of *leaves*, with a trunk to each of the relays *trunks*."""
    return View(
        mesh=mesh,
        node="n1",
        role=Role.RELAY,
        addresses=("10.100.0.1", "fd00:64::1"),
        networks=NETWORKS,
        forward=True,
        mtu=1420,
        bfd=Bfd(),
        interfaces=(
            Interface(name=mesh, kind=Kind.ACCESS, listen_port=51820, peers=leaves),
            *(
                Interface(
                    name=f"{mesh}-t{r}",
                    kind=Kind.TRUNK,
                    listen_port=51820 + r,
                    peers=(peer(r, *NETWORKS, endpoint=f"192.0.2.{r}0:51821"),),
                )
                for r in trunks
            ),
        ),
        routes=(
            Route(prefixes=NETWORKS, via=(), detour=True, from_trunk=()),
            *(Route(prefixes=p.allowed_ips, via=(p.node,), from_trunk=(p.node,)) for p in leaves),
        ),
    )


def named(view: View, access: str) -> View:
    """*view*, where the access interface is called *access*, and the others after it."""
    first = view.interfaces[0].name
    listed = (replace(i, name=f"{access}{i.name.removeprefix(first)}") for i in view.interfaces)
    return replace(view, interfaces=tuple(listed))
