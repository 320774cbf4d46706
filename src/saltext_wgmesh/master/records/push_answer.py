"""The answer of one node to a push, as much as the master reads of it.

A node returns what it likes. The answer is read once, into values of limited size: nothing else of it is kept, logged
or shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs.converters import kind
from saltext_wgmesh.core.model import untrusted
from saltext_wgmesh.core.model.untrusted import Refused, printable

MAX_ERROR_LENGTH = 500
"""Characters that are kept of an error that a node returned."""
MAX_DIGEST_LENGTH = 64
"""Characters of a digest: SHA-256 in hex. A longer one is none of the master's."""
ROLLED_BACK_KEY = "rolled_back"
"""The key in ``wgmesh.apply``'s return by which a node says that it rolled a view back, since that broke the node."""
PILLAR_ERROR_KEY = "pillar_error"
"""The key there by which a node says that the master could not read some of its records."""
_OTHER_VIEW = "it applied another view than the published one"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshAnswer:
    """The part of one mesh."""

    digest: str | None = None
    """The digest of the view that the node says it runs; None: it names none that a view could have."""
    error: str | None = None
    rolled_back: bool = False
    changed: bool = False
    """Whether the node says that it had anything to change."""
    only_tests: bool = False
    """Whether the node changed nothing since its minion's configuration has ``test: True``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAnswer:
    """The answer of one node."""

    meshes: Mapping[str, MeshAnswer] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → its part of the answer, of the meshes that were pushed."""
    error: str = _OTHER_VIEW
    """The reason why the node has not applied a mesh that says none itself."""

    def error_in(self, meshes: Iterable[str]) -> str:
        """Why the node did not apply *meshes*: its own words, or what is wrong with them."""
        parts = (self.meshes.get(mesh, MeshAnswer()) for mesh in sorted(meshes))
        return next((part.error for part in parts if part.error), self.error)


def parse_push_answer(answer: Any, pushed: Iterable[str]) -> PushAnswer:
    """The part of *answer*, the return of ``wgmesh.apply``, that concerns the meshes *pushed*."""
    answer = untrusted.bounded(answer, untrusted.RETURN_BOUNDS)
    if isinstance(answer, Refused):
        return PushAnswer(error=f"its answer {answer.reason}")
    if not isinstance(answer, dict):
        return PushAnswer(error=_text(answer))
    meshes = {mesh: _mesh_answer(answer[mesh]) for mesh in pushed if isinstance(answer.get(mesh), dict)}
    pillar_error = answer.get(PILLAR_ERROR_KEY)
    return PushAnswer(meshes=meshes, error=_text(pillar_error) if pillar_error else _OTHER_VIEW)


def _mesh_answer(raw: Mapping[Any, Any]) -> MeshAnswer:
    error = raw.get("error")
    return MeshAnswer(
        digest=_digest(raw.get("digest")),
        error=_text(error) if error else None,
        rolled_back=raw.get(ROLLED_BACK_KEY) is True,
        changed=raw.get("changed") is True,
        only_tests=raw.get(constants.TEST_KEY) is True,
    )


def _digest(value: Any) -> str | None:
    is_digest = isinstance(value, str) and len(value) <= MAX_DIGEST_LENGTH and value.isascii() and value.isprintable()
    return str(value) if is_digest else None


def _text(value: Any) -> str:
    return printable(value if isinstance(value, str) else f"it answered with {kind(value)}", MAX_ERROR_LENGTH)
