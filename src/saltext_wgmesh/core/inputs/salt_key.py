"""The fingerprint that ties a node's facts to the Salt key under which it published them."""

from __future__ import annotations

import hashlib


def fingerprint(pem: str) -> str:
    """Return the SHA-256, in hex, of the body of a PEM public key; line ends do not matter.

    Salt's own fingerprint differs between the two sides: the master of Salt 3008 hashes the whole text, and the minion
    leaves out the first and last line.
    """
    lines = (line.strip() for line in pem.splitlines())
    body = "".join(line for line in lines if line and not line.startswith("-----"))
    return hashlib.sha256(body.encode()).hexdigest()
