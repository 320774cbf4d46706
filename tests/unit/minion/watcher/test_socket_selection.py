"""The kernel's programs that select a socket: run here by an interpreter, for packets of any source and interface."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.minion.watcher import socket_selection
from saltext_wgmesh.minion.watcher.socket_selection import by_interface_and_source

SOURCES = {
    4: [ip_network(text) for text in ("10.100.0.0/16", "192.0.2.7/32", "10.9.0.0/31", "172.16.0.0/12")],
    6: [ip_network(text) for text in ("fd00:64::/64", "2001:db8::7/128", "fd00:9::/127", "fc00:8000::/17")],
}
ADDRESSES = {
    4: st.ip_addresses(v=4) | st.sampled_from([a for n in SOURCES[4] for a in (n[0], n[-1], n[0] - 1, n[-1] + 1)]),
    6: st.ip_addresses(v=6) | st.sampled_from([a for n in SOURCES[6] for a in (n[0], n[-1], n[0] - 1, n[-1] + 1)]),
}
INTERFACES = st.dictionaries(st.integers(1, 9), st.sampled_from([1, 2, 64]), max_size=4)


@given(st.data(), st.sampled_from([4, 6]), INTERFACES, st.integers(1, 9), st.integers(1, 200))
@settings(deadline=None)
def test_interface_and_source_decide_on_socket(data, family, interfaces, index, sockets):
    """Other sources and interfaces have socket 0; sockets of two interfaces meet only if there are too few."""
    sources = data.draw(st.lists(st.sampled_from(SOURCES[4] + SOURCES[6]), max_size=5))
    address = data.draw(ADDRESSES[family])
    program = by_interface_and_source(family, sources, interfaces, sockets)
    assert len(program) <= 4096
    chosen = run(program, address, index)
    if not any(address in network for network in sources) or index not in interfaces:
        assert chosen == 0
        return
    assert 1 <= chosen <= sockets
    if sockets >= sum(interfaces.values()):
        first = sum(count for other, count in list(interfaces.items())[: list(interfaces).index(index)])
        assert chosen == 1 + first + (int(address) & 0xFFFFFFFF) % interfaces[index]


def test_too_many_sources_are_all_accepted():
    """The sockets of each interface stay apart."""
    program = by_interface_and_source(4, [ip_network(i) for i in range(2000)], {3: 1, 5: 1}, 2)
    assert len(program) <= 4096
    assert [run(program, ip_address("192.0.2.1"), index) for index in (3, 4, 5)] == [1, 0, 2]


def run(program, address, interface):
    """Run *program* for a packet from *address*, as the kernel does."""
    at, value = 0, 0
    while True:
        code, jump_true, jump_false, operand = program[at]
        at += 1
        if code == socket_selection.LOAD:
            value = load(address, interface, operand)
        elif code == socket_selection.EQUAL:
            at += jump_true if value == operand else jump_false
        elif code == socket_selection.JUMP:
            at += operand
        elif code in ARITHMETIC:
            value = ARITHMETIC[code](value, operand)
        else:
            return operand if code == socket_selection.RETURN else value


ARITHMETIC = {
    socket_selection.AND: int.__and__,
    socket_selection.MODULO: int.__mod__,
    socket_selection.ADD: int.__add__,
}


def load(address, interface, offset):
    """Return a word of the packet's source address (RFC 791, RFC 8200), or the number of the interface."""
    if offset == 0xFFFFF008:
        return interface
    start = offset - 0xFFF00000 - {4: 12, 6: 8}[address.version]
    return int.from_bytes(address.packed[start : start + 4], "big")
