"""A running topology: every machine runs, is wired to its segments, and routes and filters as declared."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from .machine import CommandFailed, Machine
from .topology import MachineSpec, Topology, nat_rules

FABRIC = "fabric"
"""The machine that holds the segments: one bridge each."""

SYSCTLS = {
    # The values of a Debian with systemd. A new namespace would take its host's values for some of them.
    "net__ipv4__conf__all__rp_filter": 0,
    "net__ipv4__conf__default__rp_filter": 2,
    "net__ipv4__conf__all__send_redirects": 1,
    "net__ipv4__conf__default__send_redirects": 1,
    "net__ipv4__conf__all__promote_secondaries": 1,
    "net__ipv4__ip_forward": 0,
    # Measuring paths needs one "time exceeded" per packet. By default the kernel sends one a second.
    "net__ipv4__icmp_ratelimit": 0,
}
SYSCTLS_6 = {"net__ipv6__icmp__ratelimit": 0, "net__ipv6__conf__all__forwarding": 0}
"""Only where the kernel knows IPv6."""


class Underlay:
    """The machines of one lab by name. ``build`` makes them."""

    def __init__(self, topology: Topology, tag: str, folder: Path) -> None:
        self.topology = topology
        names = [FABRIC, *(m.name for m in topology.machines)]
        self.machines: Mapping[str, Machine] = {n: Machine(n, tag, folder / n) for n in names}

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def build(self) -> None:
        """Start all machines, wired as in the topology. CommandFailed if that is not possible."""
        for machine in self.machines.values():
            machine.start()
        for machine in self.machines.values():
            machine.await_start()
        self._batch(FABRIC, self._wiring())
        for spec in self.topology.machines:
            self._configure(spec)

    def lose_power(self, name: str) -> None:
        """Reset the machine to the state after a boot without services: files, addresses and default route only."""
        self[name].lose_power()
        self._set_sysctls(self.topology.machine(name))

    def _set_sysctls(self, spec: MachineSpec) -> None:
        values = {**SYSCTLS, "net__ipv4__ip_forward": int(spec.forward)}
        if Path("/proc/sys/net/ipv6").exists():
            values |= SYSCTLS_6
        self[spec.name].sysctl(**values)

    def _wiring(self) -> list[str]:
        lines = []
        bridges = {segment: f"br{number}" for number, segment in enumerate(self.topology.segments)}
        for bridge in bridges.values():
            lines += [f"link add {bridge} type bridge", f"link set {bridge} up"]
        for m, spec in enumerate(self.topology.machines):
            pid = self[spec.name].pid
            for p, port in enumerate(spec.ports):
                lines += [
                    f"link add m{m}p{p} type veth peer name eth{p} netns {pid}",
                    f"link set m{m}p{p} master {bridges[port.segment]} up",
                ]
        return lines

    def _configure(self, spec: MachineSpec) -> None:
        machine = self[spec.name]
        self._set_sysctls(spec)
        lines = []
        for p, port in enumerate(spec.ports):
            lines += [f"address add {address} dev eth{p}" for address in port.addresses]
            lines.append(f"link set eth{p} up")
        lines += [f"route add {prefix} via {hop}" for prefix, hop in spec.routes]
        if spec.gateway:
            lines.append(f"route add default via {spec.gateway}")
        self._batch(spec.name, lines)
        hosts = "".join(f"{m.address} {m.name}\n" for m in self.topology.machines)
        machine.run("sh", "-c", "cat >> /etc/hosts", stdin=hosts)
        if spec.nat:
            machine.run("nft", "-f", "-", stdin=nat_rules(spec.nat))

    def _batch(self, name: str, lines: list[str]) -> None:
        # Only the network is entered: `netns PID` of a veth means a pid of the host.
        enter = ["nsenter", "-t", str(self[name].pid), "-n", "ip", "-batch", "-"]
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run(enter, input=text, text=True, capture_output=True, check=False, timeout=60)
        if done.returncode:
            raise CommandFailed(f"{name}: ip -batch: {done.stderr.strip()}")
