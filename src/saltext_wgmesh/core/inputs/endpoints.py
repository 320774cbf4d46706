"""Endpoints as text → Endpoint, read strictly: the result is safe in a file and in a command."""

from __future__ import annotations

import re

from saltext_wgmesh.core.inputs.converters import Converter, InvalidValue, integer, quoted, text
from saltext_wgmesh.core.inputs.prefixes import address, special_host_range
from saltext_wgmesh.core.model.policy import Endpoint

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
"""A label in lower case. The resolver takes underscores, which RFC 1123 does not have; ``-`` begins an option."""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that makes the whole host an IPv4 address, to the C library (inet_aton(3)) and to browsers."""
_LOOPBACK = re.compile(r"(.+\.)?localhost|localhost[46]?(\.localdomain[46]?)?|ip6-(localhost|loopback)|loopback")
"""Names of the host itself (RFC 6761 section 6.3), and those that distributions write to /etc/hosts."""
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")
"""Characters that the two standards for names outside of ASCII encode differently (RFC 5894 section 7.2)."""
_MAX_HOST = 253
"""Characters of a DNS name (RFC 1035 section 2.3.4, without the root's dot)."""
_FORMS = "write host, host:port, an IPv6 address or [IPv6 address]:port"


def endpoint(default_port: int) -> Converter[Endpoint]:
    """Return a converter from ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address.

    The host is an IP address that other nodes can reach, or a name that the resolver of a node takes. The endpoint has
    it in canonical form: names in lower case and in ASCII (RFC 3490), with the dot at the end if there is one. Without
    a port, the endpoint has *default_port*.
    """

    def convert(value: object) -> Endpoint:
        word = text(value)
        host, port = _split(word)
        return Endpoint(host=host, port=default_port if port is None else _port(word, port))

    return convert


def _split(word: str) -> tuple[str, str | None]:
    """Return the host in canonical form, and the text of the port if there is one."""
    bracketed = _BRACKETED.fullmatch(word)
    if bracketed:
        if ":" not in bracketed[1]:
            raise InvalidValue(f"{quoted(word)} has no IPv6 address in its brackets", _FORMS)
        return _literal(bracketed[1]), bracketed[2]
    if word.count(":") > 1:
        return _literal(word), None
    host, colon, port = word.partition(":")
    return _host(host, word), port if colon else None


def _port(word: str, port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port):
        raise InvalidValue(f"{quoted(word)} has no port number after the colon", _FORMS)
    return integer(1, 65535)(int(port))


def _host(host: str, word: str) -> str:
    name = _ascii(host, word).lower()
    labels = name.removesuffix(".").split(".")
    # The last label of a host name is never a number (RFC 1123 section 2.1), so this must be an IPv4 address.
    if _NUMBER.fullmatch(labels[-1]):
        return _literal(name)
    if len(name.removesuffix(".")) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidValue(f"{quoted(word)} is neither an IP address nor a host name", _FORMS)
    if _LOOPBACK.fullmatch(name.removesuffix(".")):
        raise _unreachable(host)
    return name


def _ascii(host: str, word: str) -> str:
    """Return *host* as the resolver sends it: names with other characters are encoded (RFC 3490)."""
    if host.isascii():
        return host
    if _DEVIATIONS & set(host):
        raise InvalidValue(f"{quoted(word)} has two encodings", "write its ASCII form, which begins with xn--")
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidValue(f"{quoted(word)} is neither an IP address nor a host name", _FORMS) from None


def _literal(host: str) -> str:
    try:
        found = address(host)
    except InvalidValue as error:
        raise InvalidValue(error.message, _FORMS) from None
    if special_host_range(found):
        raise _unreachable(host)
    return str(found)


def _unreachable(host: str) -> InvalidValue:
    return InvalidValue(
        f"{quoted(host)} can't be reached from other nodes", "write the address that other nodes can reach"
    )


def literal_of(where: Endpoint) -> str | None:
    """Return the host of *where* if it is an IP address, None if it is a name."""
    host = where.host
    return host if ":" in host or host.rpartition(".")[2].isdigit() else None
