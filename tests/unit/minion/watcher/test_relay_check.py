"""The watcher's look at the relay: what is wrong is reported, and a missing table is written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from saltext_wgmesh.core.device.notrack import notrack_table
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.liveness.link_report import MAX_FAULT, LinkReport
from saltext_wgmesh.minion.apply import untracked
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher.relay_check import RelayCheck
from tests.nodeviews import leaf, relay

VIEW = relay(trunks=(2,))
EMPTY = '{"nftables": []}'


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallHost(Host):
    """A host that has nothing but nftables, with one table at most, and kernel settings."""

    tables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    has_nft: bool = True
    refuses: bool = False
    refusal: str = "'nft -f -' failed (1): Operation not permitted"
    on_list: list[Callable[[], None]] = field(default_factory=list)
    """Called when a table is listed, the last first, each once."""

    def run(self, *argv: str, text: str = "") -> str:
        if argv[1:3] == ("list", "table"):
            if self.on_list:
                self.on_list.pop()()
            if argv[4] not in self.tables:
                raise HostError("no such table")
            return self.tables[argv[4]]
        if argv[1] == "-j":
            return EMPTY
        if self.refuses:
            raise HostError(self.refusal)
        self.tables.clear()
        if "chain" in text:
            self.tables["wgmesh-wg0"] = text
        return ""

    def has(self, program: str) -> bool:
        return self.has_nft

    def sysctl(self, key: str) -> str | None:
        return self.settings.get(key, "1")


def host_with(tmp_path: Path, view=VIEW, **more):
    """Return a host that has applied *view*, and its check."""
    host = FirewallHost(state_dir=tmp_path / "lib", run_dir=tmp_path / "run", **more)
    with Store(host=host, mesh="wg0").locked():
        Store(host=host, mesh="wg0").set_view(view)
    return host, checked(host, view)


def checked(host, view=VIEW):
    """Return the faults that one check of *view* finds."""
    check = RelayCheck(host)
    check._views = {"wg0": view}
    check.check("wg0", view)
    return check.faults("wg0")


def test_flushed_table_is_written_again(tmp_path):
    """The check finds the table missing, writes it, and reports nothing."""
    host, faults = host_with(tmp_path)
    host.tables.clear()
    assert (faults, checked(host)) == ((), ())
    assert notrack_table(VIEW).is_in(host.tables["wgmesh-wg0"])


def test_missing_or_refused_nft_is_reported(tmp_path):
    """The apply does not fail, and the relay says what is wrong."""
    for number, more in enumerate(({"has_nft": False}, {"refuses": True})):
        host, (fault,) = host_with(tmp_path / str(number), **more)
        assert fault.startswith("relayed packets are tracked by connection")
        assert untracked.apply_table(host, VIEW) == ()


def test_forwarding_that_is_off_is_reported(tmp_path):
    """The setting is named."""
    _, (fault,) = host_with(tmp_path, settings={"net/ipv4/ip_forward": "0"})
    assert fault.startswith("net.ipv4.ip_forward is 0")


def test_table_goes_with_role_of_relay(tmp_path):
    """An apply that makes the node a leaf deletes the table, and the removal of the mesh does."""
    host, _ = host_with(tmp_path)
    assert [str(c) for c in untracked.apply_table(host, leaf())] == ["- nft table inet wgmesh-wg0: other rules"]
    assert host.tables == {}
    assert [str(c) for c in untracked.apply_table(host, VIEW, dry_run=True)]
    assert host.tables == {}
    untracked.apply_table(host, VIEW)
    shown = untracked.remove_table(host, "wg0", dry_run=True)
    assert host.tables
    assert untracked.remove_table(host, "wg0") == shown != ()
    assert host.tables == {}


def test_check_leaves_applied_change_alone(tmp_path):
    """A view that is no longer the applied one writes no table."""
    host, _ = host_with(tmp_path, leaf())
    assert checked(host) == ()
    assert host.tables == {}


def test_check_writes_nothing_after_later_apply(tmp_path):
    """An apply makes the node a leaf after the check has read the view: the table stays away."""
    host, _ = host_with(tmp_path)
    host.tables.clear()
    host.on_list.append(lambda: Store(host=host, mesh="wg0").set_view(leaf()))
    assert checked(host) == ()
    assert host.tables == {}


def test_check_waits_while_apply_runs(tmp_path):
    """An apply has deleted the table, and has not recorded its view yet."""
    host, _ = host_with(tmp_path)
    host.tables.clear()
    with Store(host=host, mesh="wg0").locked():
        assert checked(host) == ()
    assert host.tables == {}


def test_long_refusal_is_cut(tmp_path):
    """``nft`` repeats each rule that it refuses; the report has the beginning."""
    _, (fault,) = host_with(tmp_path, refuses=True, refusal="x" * 10_000)
    assert len(fault) == MAX_FAULT


def test_faults_are_part_of_link_report():
    """A report carries them to the master; one without faults is written as before."""
    report = LinkReport(mesh="wg0", from_watcher=True, relay_faults=("it does not forward",))
    assert LinkReport.from_dict(report.as_dict()) == report
    assert "relay_faults" not in replace(report, relay_faults=()).as_dict()
