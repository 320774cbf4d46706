"""Codes of BFD packets: who may speak for a neighbour, before, while and after its two keys change."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.keys.bfd_keys import link_keys
from saltext_wgmesh.core.liveness.bfd import PACKET_LENGTH, BfdState, Packet, decode
from saltext_wgmesh.core.liveness.bfd_auth import CODE_LENGTH, REMEMBERED, Authentication, Authenticity

GENUINE, UNSIGNED, FORGED = Authenticity.GENUINE, Authenticity.UNSIGNED, Authenticity.FORGED
PACKET = Packet(
    state=BfdState.UP,
    multiplier=3,
    my_discriminator=7,
    your_discriminator=9,
    desired_min_tx=100_000,
    required_min_rx=100_000,
)
DATA = PACKET.encode()
PRIVATE = [bytes([number]) * 32 for number in range(1, 6)]


def public(private):
    """The public key of *private*, in base64."""
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def end(own, others):
    """One end of a link: with the private keys *own*, and the public keys of the private keys *others*."""
    made = Authentication()
    made.set_keys(link_keys(own, map(public, others)))
    return made


@pytest.fixture
def ends():
    """Both ends of a link."""
    return end(PRIVATE[:1], PRIVATE[1:2]), end(PRIVATE[1:2], PRIVATE[:1])


def test_packet_of_other_end_is_genuine(ends):
    """In each direction, and not when it comes back to its sender."""
    for one, other in (ends, ends[::-1]):
        data = one.sign(DATA, 0.0)
        assert other.check(data, 0.0) is GENUINE
        assert one.check(data, 100.0) is UNSIGNED


def test_former_version_reads_packet_with_code(ends):
    """It ignores what follows after the length of the packet."""
    data = ends[0].sign(DATA, 0.0)
    assert len(data) == PACKET_LENGTH + CODE_LENGTH
    assert decode(data) == PACKET


@settings(max_examples=60, deadline=None)
@given(st.integers(0, (PACKET_LENGTH + CODE_LENGTH) * 8 - 1))
def test_packet_with_one_changed_bit_is_forged(bit):
    """Wherever the bit is. After a while without codes the neighbour counts as one that sends none."""
    one, other = end(PRIVATE[:1], PRIVATE[1:2]), end(PRIVATE[1:2], PRIVATE[:1])
    data = bytearray(one.sign(DATA, 0.0))
    assert other.check(bytes(data), 0.0) is GENUINE
    data[bit // 8] ^= 1 << bit % 8
    assert other.check(bytes(data), REMEMBERED - 0.1) is FORGED
    assert other.check(bytes(data), REMEMBERED) is UNSIGNED


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_never_genuine(data):
    """Before and after the neighbour was heard, and without any key."""
    one, other = end(PRIVATE[:1], PRIVATE[1:2]), end(PRIVATE[1:2], PRIVATE[:1])
    assert Authentication().check(data, 0.0) is other.check(data, 0.0) is UNSIGNED
    other.check(one.sign(DATA, 0.0), 0.0)
    assert other.check(data, 1.0) is FORGED


def test_third_node_signs_for_no_other(ends):
    """Not even with its own key for the node that receives the packet."""
    third = end(PRIVATE[2:3], PRIVATE[1:2])
    assert ends[1].check(third.sign(DATA, 0.0), 0.0) is UNSIGNED


def test_public_key_without_point_has_no_key():
    """Such as zero, and text that is no key. The other keys are used."""
    zero = base64.b64encode(bytes(32)).decode()
    assert len(link_keys(PRIVATE[:1], (zero, "no key", "c2hvcnQ=", public(PRIVATE[1])))) == 1


def test_keys_are_shown_in_no_text():
    """An error or a log line that has the keys of a link shows nothing of them."""
    (key,) = link_keys(PRIVATE[:1], (public(PRIVATE[1]),))
    assert repr(key) == "LinkKey()"


OWN, NEXT = PRIVATE[0], PRIVATE[1]
THEIRS, THEIR_NEXT = PRIVATE[2], PRIVATE[3]
STAGES = ((OWN,), (OWN, NEXT), (NEXT,))
THEIR_STAGES = ((THEIRS,), (THEIRS, THEIR_NEXT), (THEIR_NEXT,))
"""The keys of one end during its rotation: the old one, both, the new one."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ours", "theirs"]), min_size=4, max_size=4).filter(lambda o: o.count("ours") == 2))
def test_rotations_of_both_ends_lose_few_packets(order):
    """In every order of the steps, where each end is told of the other's step before its next one. Of two packets in a
    row each way the second is genuine: fewer are lost than end a session."""
    stage = {"ours": 0, "theirs": 0}
    ours, theirs = end(STAGES[0], THEIR_STAGES[0]), end(THEIR_STAGES[0], STAGES[0])
    now = 0.0

    def exchange():
        nonlocal now
        for _ in range(2):
            now += 0.1
            last = [theirs.check(ours.sign(DATA, now), now), ours.check(theirs.sign(DATA, now), now)]
        assert last == [GENUINE, GENUINE]

    exchange()
    for step in order:
        stage[step] += 1
        told = [(ours, STAGES[stage["ours"]], THEIR_STAGES[stage["theirs"]])]
        told.append((theirs, THEIR_STAGES[stage["theirs"]], STAGES[stage["ours"]]))
        for one, own, others in told if step == "ours" else told[::-1]:
            one.set_keys(link_keys(own, map(public, others)))
            exchange()


def test_restarted_end_finds_pair_of_keys_in_turns():
    """Its view names a key that the neighbour has destroyed, beside the one that it runs."""
    restarted, other = end((OWN,), (THEIRS, THEIR_NEXT)), end((THEIR_NEXT,), (OWN,))
    found = [other.check(restarted.sign(DATA, second), second) for second in range(2)]
    assert GENUINE in found
