"""The facts that a node publishes of itself, and their rejection, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


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
    def keys(self) -> tuple[str, ...]:
        """All public keys of this node, the current key first."""
        return (self.public_key, self.next_key) if self.next_key else (self.public_key,)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rejection:
    """Why the facts of a node are not trusted, and how to mend that."""

    node: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}; {self.remedy}"
