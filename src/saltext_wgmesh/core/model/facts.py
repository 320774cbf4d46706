"""The facts that a node publishes of itself, and their rejection, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from saltext_wgmesh.core.model.addresses import address_family


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that a node publishes of itself, after validation.

    A node may publish what it likes: no fact grants it a role, an address or a subnet.
    """

    node: str
    public_key: str
    """Base64 of 32 bytes."""
    salt_key: str
    """Fingerprint of the minion key under which the facts were published. A new minion with an old id has another key
    and inherits nothing."""
    underlay: tuple[str, ...] = ()
    """The underlay addresses of the node, the address of its default route first."""
    networks: tuple[str, ...] = ()
    """The prefixes of the node's own interfaces, without those of the mesh."""
    lans: tuple[str, ...] | None = None
    """Those of ``networks`` in which the underlay addresses are. None: the node's version does not tell them apart."""
    ipv6: bool = True
    """Whether IPv6 is enabled on the node."""
    next_key: str | None = None
    """The public key that the node is about to run instead; None: there is no second key."""

    @property
    def families(self) -> frozenset[int]:
        """The address families in which the node may open connections; empty: it reports no address."""
        return usable_families(self.underlay, self.networks)

    @property
    def keys(self) -> tuple[str, ...]:
        """All public keys of this node, the current key first."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)


def usable_families(underlay: Iterable[str], networks: Iterable[str]) -> frozenset[int]:
    """Return the address families in which a node may open connections; empty: it has no *underlay* address.

    An IPv4 network of 464XLAT (RFC 7335) gives a node IPv4 without an address that others can reach.
    """
    own = frozenset(address_family(a) for a in underlay)
    return own | {4} if own and any(n.startswith("192.0.0.") for n in networks) else own


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rejection:
    """Why the facts of a node are not trusted, and how to mend that."""

    node: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}; {self.remedy}"
