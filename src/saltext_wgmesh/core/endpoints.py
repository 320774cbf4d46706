"""Endpoints as text → Endpoint, so strictly that what comes out can stand in a file or a command."""

from __future__ import annotations

import re

from saltext_wgmesh.core.fields import Converter, Wrong, integer, shown, text
from saltext_wgmesh.core.prefixes import address, is_local
from saltext_wgmesh.core.types import Endpoint

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LONGEST_HOST = 253
"""Characters of a DNS name (RFC 1035 section 2.3.4, without the root's dot)."""
_FORMS = "write host, host:port, an IPv6 address or [IPv6 address]:port"


def endpoint(default_port: int) -> Converter[Endpoint]:
    """A converter from ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address.

    The host is an IP address that others can reach, or a host name of RFC 1123; it comes out in its canonical
    form (names in lower case).
    """

    def convert(value: object) -> Endpoint:
        word = text(value)
        host, port = _split(word)
        return Endpoint(host=host, port=default_port if port is None else _port(word, port))

    return convert


def _split(word: str) -> tuple[str, str | None]:
    """Host in canonical form, and the text of the port if there is one."""
    bracketed = _BRACKETED.fullmatch(word)
    if bracketed:
        if ":" not in bracketed[1]:
            raise Wrong(f"{shown(word)} has no IPv6 address in its brackets", _FORMS)
        return _literal(bracketed[1]), bracketed[2]
    if word.count(":") > 1:
        return _literal(word), None
    host, colon, port = word.partition(":")
    return _host(host, word), port if colon else None


def _port(word: str, port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port):
        raise Wrong(f"{shown(word)} has no port number after the colon", _FORMS)
    return integer(1, 65535)(int(port))


def _host(host: str, word: str) -> str:
    labels = host.split(".")
    if labels[-1].isdigit():
        return _literal(host)
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise Wrong(f"{shown(word)} is neither an IP address nor a host name", _FORMS)
    return host.lower()


def _literal(host: str) -> str:
    try:
        found = address(host)
    except Wrong as wrong:
        raise Wrong(wrong.what, _FORMS) from None
    if is_local(found) or found.is_unspecified:
        raise Wrong(f"{shown(host)} can't be reached from other nodes", "write the address that other nodes can reach")
    return str(found)


def literal_of(where: Endpoint) -> str | None:
    """The host if it is an IP address, None if it is a name."""
    return where.host if ":" in where.host or where.host.rpartition(".")[2].isdigit() else None
