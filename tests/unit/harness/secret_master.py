"""A master whose nodes have real keys and read their pillar."""

from __future__ import annotations

import json
from pathlib import Path

from saltext_wgmesh.core.keys import sealed_box
from saltext_wgmesh.master.records import psk_secrets
from saltext_wgmesh.master.records.psk_secrets import PskSecrets
from saltext_wgmesh.minion.state import keys
from tests.unit.harness.fake_master import FakeMaster, mine
from tests.unit.harness.fakehost import FakeHost, Kernel

NODES = ("r1", "a", "b")


class SecretMaster(FakeMaster):
    """A relay and two leaves, with the secrets of their PSKs in files below *folder*."""

    def __init__(self, folder: Path) -> None:
        super().__init__(pki_dir=str(folder / "pki"))
        self.hosts = {n: FakeHost.below(folder / n, Kernel()) for n in NODES}
        self.mine = {n: mine(n, public_key=keys.ensure(host)) for n, host in self.hosts.items()}
        self.now = 10_000.0
        self.ring = PskSecrets.of(self.opts, "wg0")

    def turn(self, *, on: bool) -> None:
        """Whether the policy wants PSKs."""
        self.policy = {"wg0": {**self.policy["wg0"], "preshared_keys": on}}

    def pillar(self, node: str) -> dict[str, str]:
        """PSK id → PSK, as *node* has them from its pillar."""
        boxes = psk_secrets.sealed_psks(self.opts, self.ledger.assignments(node))
        (private,) = keys.private_keys(self.hosts[node])
        return json.loads(sealed_box.open_sealed(boxes["wg0"], "wg0", private)) if boxes else {}

    def psk(self, node: str, neighbour: str) -> str | None:
        """The PSK that *node* is to have with *neighbour*."""
        view = self.ledger.assignments(node)["wg0"]
        (peer,) = [p for i in view["interfaces"] for p in i["peers"] if p["node"] == neighbour]
        return self.pillar(node)[peer["psk_ids"][0]] if peer.get("psk_ids") else None

    def psks(self) -> dict[str, str | None]:
        """Leaf → the PSK of its link, which both ends were told alike."""
        assert all(self.psk(leaf, "r1") == self.psk("r1", leaf) for leaf in ("a", "b"))
        return {leaf: self.psk(leaf, "r1") for leaf in ("a", "b")}
