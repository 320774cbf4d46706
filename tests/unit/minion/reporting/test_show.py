"""What a node shows of its counters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saltext_wgmesh.minion.reporting import show
from saltext_wgmesh.minion.system.host import Host

SNMP = """\
Ip: Forwarding DefaultTTL InReceives ForwDatagrams InDiscards
Ip: 1 64 1000 41 2
Icmp: InMsgs
Icmp: 3
"""


def test_forwarded_packets_of_both_families_are_counted(tmp_path: Path):
    """The format is that of the kernel's files; a host without IPv6 lacks one of them."""
    host = replace(Host(), proc_net=tmp_path)
    (tmp_path / "snmp").write_text(SNMP)
    assert show.forwarded(host) == 41
    (tmp_path / "snmp6").write_text("Ip6InReceives                   \t7\nIp6OutForwDatagrams             \t5\n")
    assert show.forwarded(host) == 46
