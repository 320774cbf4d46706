"""The result of a call that converges, as the runner returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.master.records.decisions import PolicyPin
from saltext_wgmesh.master.report import MeshReport

PIN_ENDED = "none: the mesh is planned by its policy in the pillar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergeResult:
    """The reports of a call that converged, or the reason why there are none."""

    reports: Mapping[str, MeshReport] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → what was done."""
    queued: str = ""
    """The sentence to a caller that does not wait for the run in progress, which takes the request; else empty."""
    busy: str = ""
    """The sentence to an operator who waited for that run, and it did not end; else empty."""
    error: str = ""
    """The error of the run, for a caller that gets no exception; else empty."""
    pins: Mapping[str, PolicyPin | None] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh that the call pinned, or took the pin of → its pin now; None if it has none."""

    @property
    def has_failed(self) -> bool:
        """Whether ``salt-run`` exits with 1: there is no report, something needs attention, or something is down."""
        carries = all(report.is_clean and not report.down for report in self.reports.values())
        return bool(self.busy or self.error) or not carries

    def as_dict(self) -> dict[str, Any]:
        """Plain values by mesh, or under ``busy`` or ``error``; ``retcode`` is the exit status of ``salt-run``."""
        found: dict[str, Any] = {mesh: report.as_dict() for mesh, report in self.reports.items()}
        found |= {name: text for name, text in (("busy", self.busy), ("error", self.error)) if text}
        found |= {"retcode": 1} if self.has_failed else {}
        for mesh, pin in self.pins.items():
            found[mesh] = {**found.get(mesh, {}), "policy_pin": pin.as_dict() if pin else PIN_ENDED}
        return found
