"""The fingerprint that ties a node's facts to the Salt key under which it published them."""

from __future__ import annotations

import hashlib


def fingerprint(pem: str) -> str:
    """SHA-256, in hex, over the body of a PEM public key, whatever its line ends.

    Salt's own fingerprint is not the same on both sides: the master of 3008 hashes the whole text,
    the minion leaves out the first and last line.
    """
    lines = (line.strip() for line in pem.splitlines())
    body = "".join(line for line in lines if line and not line.startswith("-----"))
    return hashlib.sha256(body.encode()).hexdigest()
