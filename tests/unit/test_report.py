"""What a node tells of its counters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saltext_wgmesh.minion import report
from saltext_wgmesh.minion.host import Host

SNMP = """\
Ip: Forwarding DefaultTTL InReceives ForwDatagrams InDiscards
Ip: 1 64 1000 41 2
Icmp: InMsgs
Icmp: 3
"""


def test_forwarded_packets_of_both_families_are_counted(tmp_path: Path):
    """As the kernel's files have them; a host without IPv6 has no file for it."""
    host = replace(Host(), proc_net=tmp_path)
    (tmp_path / "snmp").write_text(SNMP)
    assert report.forwarded(host) == 41
    (tmp_path / "snmp6").write_text("Ip6InReceives                   \t7\nIp6OutForwDatagrams             \t5\n")
    assert report.forwarded(host) == 46
