"""A node made of values: ``wg``, ``ip`` and /proc/sys as text in and text out, with the kernel's rules kept.

It refuses what the kernel refuses (a route over a device that is down, a port that is taken, a rule twice), since
a fake that takes everything proves nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host

FIRST_EPHEMERAL_PORT = 40000


@dataclass
class FakePeer:
    """A peer as ``wg`` holds it."""

    endpoint: str | None = None
    keepalive: int = 0
    allowed_ips: set[str] = field(default_factory=set)
    handshake_at: int = 0
    received: int = 0
    sent: int = 0
    preshared: str | None = None
    """The key itself, as the kernel has it."""


@dataclass
class FakeDevice:
    """A network device; ``peers`` is None on one that is no WireGuard."""

    up: bool = False
    mtu: int = 1420
    addresses: list[str] = field(default_factory=list)
    public_key: str | None = None
    port: int = 0
    peers: dict[str, FakePeer] | None = field(default_factory=dict)
    kind: str | None = None
    master: str | None = None


@dataclass
class Kernel:
    """What a test looks at and prepares."""

    devices: dict[str, FakeDevice] = field(default_factory=dict)
    routes: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """(table, prefix) → the words of the route."""
    rules: set[tuple[int, str, str]] = field(default_factory=set)
    """(family, device, table)."""
    inverted_rules: set[tuple[int, str, str]] = field(default_factory=set)
    """Those of another program that differ by ``not`` alone."""
    sysctls: dict[str, str] = field(default_factory=dict)
    touched: list[tuple[str, str]] = field(default_factory=list)
    """Device and public key of each peer that a ``wg set`` named."""
    ran: list[tuple[str, ...]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """What DNS knows: ``host:port`` → ``address:port``."""
    has_wireguard: bool = True
    refused_prefixes: set[str] = field(default_factory=set)
    """No route is set for these."""
    programs: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeHost(Host):
    """A Host over a Kernel of values; its files are real ones, below a test's folder."""

    kernel: Kernel

    @classmethod
    def below(cls, folder: Path, kernel: Kernel) -> FakeHost:
        """A host whose files lie in *folder*."""
        return cls(
            kernel=kernel,
            key_file=folder / "etc/wgmesh.key",
            conf_dir=folder / "etc",
            state_dir=folder / "lib",
            run_dir=folder / "run",
            systemd_dir=folder / "systemd",
            units_dir=folder / "units",
            boot_id=folder / "boot_id",
        )

    def run(self, *argv: str, text: str = "") -> str:
        self.kernel.ran.append(argv)
        # Names of tables and protocols are numbers here in any case.
        argv = tuple(word for word in argv if word != "-N")
        if argv[:2] == ("wg", "show"):
            return _dump(self.kernel)
        if argv[:2] == ("wg", "set"):
            _wg_set(self.kernel, argv[2], list(argv[3:]))
            return ""
        if argv[0] == "systemctl":
            return ""
        if argv[:3] == ("ip", "link", "add"):
            if not self.kernel.has_wireguard:
                raise HostError("'ip link add' failed (2): Error: Unknown device type.")
            _add_device(self.kernel, argv[4])
            return ""
        if "-batch" in argv:
            _ip_batch(self.kernel, int(argv[1][1]), text.splitlines(), keep_on="-force" in argv)
            return ""
        return _ip_show(self.kernel, argv)

    def start(self, *argv: str) -> None:
        self.kernel.ran.append(argv)
        _add_device(self.kernel, argv[1])

    def has(self, program: str) -> bool:
        return program in self.kernel.programs

    def sysctl(self, key: str) -> str | None:
        return self.kernel.sysctls.get(key)

    def set_sysctl(self, key: str, value: str) -> None:
        _need(key in self.kernel.sysctls, f"no such key {key}")
        self.kernel.sysctls[key] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class MisprintingHost(FakeHost):
    """A FakeHost on which tools print what a test says."""

    printed: dict[str, str] = field(default_factory=dict)
    """A word of a command → the output of each command that has it."""

    def run(self, *argv: str, text: str = "") -> str:
        found = [self.printed[word] for word in argv if word in self.printed]
        # Zero-argument super() fails in a class that dataclass has made again for its slots.
        return found[0] if found else super(MisprintingHost, self).run(*argv, text=text)


def with_ipv6() -> dict[str, str]:
    """The kernel settings of a node where nothing was set yet."""
    return {
        "net/ipv6/conf/all/disable_ipv6": "0",
        "net/ipv6/conf/default/disable_ipv6": "0",
        "net/ipv6/conf/all/forwarding": "0",
        "net/ipv4/ip_forward": "0",
        "net/ipv4/conf/all/send_redirects": "1",
    }


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise HostError(f"the kernel refuses: {message}")


def _add_device(kernel: Kernel, name: str) -> None:
    _need(name not in kernel.devices, f"{name} exists")
    kernel.devices[name] = FakeDevice()
    kernel.sysctls |= {f"net/ipv4/conf/{name}/rp_filter": "0", f"net/ipv4/conf/{name}/send_redirects": "1"}


def _dump(kernel: Kernel) -> str:
    lines = []
    for name, device in kernel.devices.items():
        if device.peers is None:
            continue
        lines.append((name, "PRIVATE", device.public_key or "(none)", str(device.port), "off"))
        for key, peer in device.peers.items():
            lines.append(
                (
                    name,
                    key,
                    peer.preshared or "(none)",
                    peer.endpoint or "(none)",
                    ",".join(peer.allowed_ips) or "(none)",
                    str(peer.handshake_at),
                    str(peer.received),
                    str(peer.sent),
                    str(peer.keepalive or "off"),
                )
            )
    return "".join("\t".join(line) + "\n" for line in lines)


def _wg_set(kernel: Kernel, name: str, words: list[str]) -> None:
    device = kernel.devices[name]
    assert device.peers is not None
    key = ""
    while words:
        word = words.pop(0)
        if word == "private-key":
            path = Path(words.pop(0))
            _need(path.exists(), f"no such file {path}")
            device.public_key = keys.public_of(path)
        elif word == "listen-port":
            _set_port(kernel, name, int(words.pop(0)))
        elif word == "peer":
            key = words.pop(0)
            kernel.touched.append((name, key))
            _need(words[:1] == ["remove"] or bool(words), "a peer with nothing to set")
            device.peers.setdefault(key, FakePeer())
        elif word == "remove":
            del device.peers[key]
        elif word == "endpoint":
            device.peers[key].endpoint = _resolve(kernel, words.pop(0))
        elif word == "preshared-key":
            # Standard input and the words themselves are no place for a key: only the file's path is.
            device.peers[key].preshared = Path(words.pop(0)).read_text().strip() or None
        elif word == "persistent-keepalive":
            device.peers[key].keepalive = int(words.pop(0))
        elif word == "allowed-ips":
            allowed = set(words.pop(0).split(",")) - {""}
            for other in device.peers.values():
                other.allowed_ips -= allowed
            device.peers[key].allowed_ips = allowed
        else:
            raise AssertionError(word)


def _set_port(kernel: Kernel, name: str, port: int) -> None:
    taken = {d.port for n, d in kernel.devices.items() if n != name}
    if port == 0:
        port = next(p for p in range(FIRST_EPHEMERAL_PORT, 65536) if p not in taken)
    _need(port not in taken, f"port {port} of {name} is taken")
    kernel.devices[name].port = port


def _resolve(kernel: Kernel, endpoint: str) -> str:
    if endpoint[0].isdigit() or endpoint[0] == "[":
        return endpoint
    _need(endpoint in kernel.names, f"Name or service not known: `{endpoint}'")
    return kernel.names[endpoint]


def _ip_batch(kernel: Kernel, family: int, lines: list[str], *, keep_on: bool) -> None:
    refused = []
    for number, line in enumerate(lines, start=1):
        try:
            _ip_line(kernel, family, line.split())
        except HostError as error:
            if not keep_on:
                raise
            refused.append(f"{error}\nCommand failed -:{number}")
    if refused:
        raise HostError("'ip -force -batch -' failed (1): " + "\n".join(refused))


def _ip_line(kernel: Kernel, family: int, words: list[str]) -> None:
    kind, verb, rest = words[0], words[1], words[2:]
    if kind == "link" and verb == "del":
        del kernel.devices[rest[0]]
        kernel.sysctls = {k: v for k, v in kernel.sysctls.items() if f"/{rest[0]}/" not in k}
        kernel.routes = {k: r for k, r in kernel.routes.items() if r.get("dev") != rest[0]}
    elif kind == "link":
        device = kernel.devices[rest[1]]
        if rest[2] == "mtu":
            device.mtu = int(rest[3])
        else:
            device.up = rest[2] == "up"
            if not device.port:
                _set_port(kernel, rest[1], 0)
    elif kind == "address":
        addresses = kernel.devices[rest[2]].addresses
        _need((rest[0] in addresses) == (verb == "del"), f"address {verb} {rest[0]}")
        (addresses.append if verb == "add" else addresses.remove)(rest[0])
    elif kind == "rule":
        rule = (family, rest[1], rest[3])
        _need(verb == "del" or rule not in kernel.inverted_rules, f"rule {verb} {rule}: File exists")
        _need((rule in kernel.rules) == (verb == "del"), f"rule {verb} {rule}")
        (kernel.rules.add if verb == "add" else kernel.rules.remove)(rule)
    else:
        _route_line(kernel, family, verb, rest)


def _route_line(kernel: Kernel, family: int, verb: str, words: list[str]) -> None:
    unreachable = words[0] == "unreachable"
    prefix, *rest = words[1:] if unreachable else words
    route = dict(zip(rest[::2], rest[1::2], strict=True))
    place = (route.pop("table", "main"), prefix)
    _need((":" in prefix) == (family == 6), f"{prefix} is not of IPv{family}")
    if verb == "del":
        _need(place in kernel.routes and kernel.routes[place].get("dev") == route.get("dev"), f"no route {place}")
        del kernel.routes[place]
        return
    _need(prefix not in kernel.refused_prefixes, f"route {prefix}")
    if not unreachable:
        device = kernel.devices.get(route["dev"])
        _need(device is not None and device.up, f"route {prefix} over {route['dev']}, which is not up")
    source = route.get("src")
    held = {a.partition("/")[0] for d in kernel.devices.values() for a in d.addresses}
    _need(source is None or source in held, f"source {source} is not here")
    kernel.routes[place] = route


def _ip_show(kernel: Kernel, argv: tuple[str, ...]) -> str:
    if argv[-1] == "address":
        return json.dumps([_shown(name, device) for name, device in kernel.devices.items()])
    if "rule" in argv:
        family = int(argv[1][1])
        shown = [{"iif": d, "table": t} for f, d, t in sorted(kernel.rules) if f == family]
        shown += [{"not": None, "iif": d, "table": t} for f, d, t in sorted(kernel.inverted_rules) if f == family]
        return json.dumps([{"priority": 8700, "src": "all", **rule} for rule in shown])
    if argv[-1] == "default":
        return "[]"
    if argv == ("ip", "-json", "route", "show", "table", "all"):
        return json.dumps([_shown_route(p, r) | {"protocol": r["proto"]} for p, r in kernel.routes.items()])
    *words, protocol = argv
    assert words == ["ip", "-json", "route", "show", "table", "all", "proto"], argv
    return json.dumps([_shown_route(p, r) for p, r in kernel.routes.items() if r["proto"] == protocol])


def _shown(name: str, device: FakeDevice) -> dict[str, object]:
    addresses = [a.split("/") for a in device.addresses]
    return {
        "ifname": name,
        "flags": ["UP"] if device.up else [],
        "mtu": device.mtu,
        "addr_info": [
            {"local": a, "prefixlen": int(n), "scope": "host" if name == "lo" else "global"} for a, n in addresses
        ],
        **({"linkinfo": {"info_kind": device.kind}} if device.kind else {}),
        **({"master": device.master} if device.master else {}),
    }


def _shown_route(place: tuple[str, str], route: dict[str, str]) -> dict[str, object]:
    table, prefix = place
    bare = prefix.removesuffix("/32").removesuffix("/128")
    shown: dict[str, object] = {"dst": bare, "flags": []}
    if table != "main":
        shown["table"] = table
    if "dev" in route:
        shown["dev"] = route["dev"]
    else:
        shown["type"] = "unreachable"
    return shown | ({"prefsrc": route["src"]} if "src" in route else {})
