"""Messages, topics, chunks, authenticator, signatures and goals: round trips, limits, forgeries."""

import base64
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from lepton_edge.errors import (
    AuthenticationError,
    BundleError,
    GoalRefusedError,
    HashMismatchError,
    LeptonError,
    MessageError,
    SignatureError,
    UsageError,
)
from lepton_edge.typed import encode
from lepton_edge.wire import authenticator, goal, messages, signatures, topics
from lepton_edge.wire.chunks import CHUNK_SIZE, MAX_BITS, BlobRef, blob_ref, pack_bits, unpack_bits
from lepton_edge.wire.topics import DeviceTopic, Kind
from tests.kernel import strategies as wire

KEY = bytes(range(32))


@given(st.data(), st.sampled_from(list(wire.bodies)))
def test_every_body_survives_the_wire(data: st.DataObject, kind: Kind) -> None:
    body = data.draw(wire.bodies[kind])
    assert messages.decode_body(kind, encode(body)) == body


@given(st.data(), st.sampled_from(list(wire.bodies)))
def test_unknown_fields_are_tolerated(data: st.DataObject, kind: Kind) -> None:
    body = data.draw(wire.bodies[kind])
    document = json.loads(encode(body)) | {"of_a_later_version": [1, {"x": None}]}
    assert messages.decode_body(kind, json.dumps(document).encode()) == body


@given(st.sampled_from(list(wire.bodies)), st.binary(max_size=300))
def test_random_bytes_are_refused_by_name_and_never_crash(kind: Kind, data: bytes) -> None:
    with pytest.raises(MessageError, match=str(kind)):
        messages.decode_body(kind, data)


def test_a_deeply_nested_body_is_refused() -> None:
    with pytest.raises(MessageError):
        messages.decode_body(Kind.INFO, b'{"x":' + b"[" * 30_000)


@pytest.mark.parametrize("kind", list(messages.LIMITS))
def test_a_body_over_its_limit_is_refused_before_parsing(kind: Kind) -> None:
    with pytest.raises(MessageError, match="at most"):
        messages.decode_body(kind, b" " * (messages.LIMITS[kind] + 1))


def test_the_limits_fit_the_payload_limit_of_the_broker() -> None:
    assert max(*messages.LIMITS.values(), goal.MAX_GOAL * 4 // 3) + authenticator.MAX_HEADER <= messages.MAX_PAYLOAD


@given(wire.names, st.sampled_from(Kind))
def test_device_topics_round_trip(device: str, kind: Kind) -> None:
    assert topics.parse(topics.device_topic(device, kind)) == DeviceTopic(device, kind)


@given(wire.digests, st.integers(0, 65_535))
def test_chunk_topics_round_trip(blob: str, index: int) -> None:
    assert topics.parse(topics.chunk_topic(blob, index)) == topics.ChunkTopic(blob, index)


@pytest.mark.parametrize("device", ["a/b", "a+b", "#", "", "-a", "a" * 64, "ä", "a\n", ".", "a b"])
def test_an_id_that_a_topic_cannot_hold_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        topics.device_topic(device, Kind.STATUS)


@given(st.text(max_size=80))
def test_foreign_topics_are_refused(topic: str) -> None:
    with pytest.raises(MessageError):
        topics.parse(topic)


@pytest.mark.parametrize("index", ["-1", "01", "65536", "x", "", "٣"])
def test_a_chunk_topic_with_a_bad_index_is_refused(index: str) -> None:
    with pytest.raises(MessageError):
        topics.parse(f"lep/v1/blob/{'0' * 64}/{index}")


@given(st.binary(max_size=3 * CHUNK_SIZE))
def test_a_blob_reference_adds_up_and_knows_its_bytes(data: bytes) -> None:
    ref = blob_ref(data)
    assert ref.check(what="x").verify(data, what="x") == data
    assert ref.offsets() == list(range(0, len(data), CHUNK_SIZE))
    with pytest.raises(HashMismatchError):
        ref.verify(data + b"x", what="x")


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": 11},
        {"size": 2**60},
        {"sha256": "Z" * 64},
        {"sha256": "../../../etc/passwd"},
        {"chunks": [("0" * 64, 0), ("0" * 64, 10)]},
        {"chunks": [("0" * 64, CHUNK_SIZE + 1)], "size": CHUNK_SIZE + 1},
        {"chunks": [("0" * 63, 10)]},
        {"chunks": [("0" * 64, 1)] * 65_537, "size": 65_537},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_inconsistent_blob_reference_is_refused(change: dict[str, object]) -> None:
    ref = msgspec.structs.replace(blob_ref(b"0123456789"), **change)
    with pytest.raises(BundleError):
        ref.check(what="x")


@given(st.lists(st.booleans(), max_size=MAX_BITS))
def test_need_bits_round_trip(lacking: list[bool]) -> None:
    assert unpack_bits(pack_bits(lacking)) == [index for index, bit in enumerate(lacking) if bit]


def test_bit_order_is_least_significant_first() -> None:
    assert base64.b64decode(pack_bits([True] + [False] * 8 + [True])) == b"\x01\x02"


@pytest.mark.parametrize("text", ["*", "A", base64.b64encode(bytes(MAX_BITS // 8 + 1)).decode(), "A" * 100_000])
def test_bad_need_bits_are_refused(text: str) -> None:
    with pytest.raises(MessageError):
        unpack_bits(text)


def _sealed(kind: Kind = Kind.REPORTED, seq: int | None = 3, body: bytes = b"{}") -> tuple[bytes, DeviceTopic]:
    topic = DeviceTopic("dev-1", kind)
    speaker: authenticator.Speaker = "manager" if kind is Kind.ACK else "device"
    return authenticator.seal(KEY, topic, body, speaker=speaker, generation=2, boot=5, seq=seq), topic


@given(st.binary(max_size=100), st.none() | wire.naturals)
def test_a_sealed_message_opens_with_its_order(body: bytes, seq: int | None) -> None:
    payload, topic = _sealed(seq=seq, body=body)
    sealed = authenticator.unseal(KEY, payload, topic, limit=1000)
    assert (sealed.body, sealed.header.order, sealed.header.is_will) == (body, (2, 5, seq or 0), seq is None)


def test_the_mac_is_what_the_design_says() -> None:
    """Computed here by hand, so that another implementation can rely on the words of the design."""
    import hashlib
    import hmac

    payload, _ = _sealed(seq=None, body=b"body")
    text = b"lepton-edge 1\ndevice\ndev-1\n2\n5\n\nlep/v1/d/dev-1/reported\nbody"
    header = json.loads(payload.partition(b"\n")[0])
    assert header == {
        "v": 1,
        "from": "device",
        "device": "dev-1",
        "generation": 2,
        "boot": 5,
        "seq": None,
        "mac": hmac.new(KEY, text, hashlib.sha256).hexdigest(),
    }


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_changes_what_is_said(position: int, flip: int) -> None:
    payload, topic = _sealed(body=b'{"counter":1}')
    changed = bytearray(payload)
    changed[position % len(changed)] ^= flip
    try:
        got = authenticator.unseal(KEY, bytes(changed), topic, limit=1000)
    except MessageError:
        return
    # A flip in the name of a field with a default (the version) makes it an unknown one; all that counts is the same.
    assert got == authenticator.unseal(KEY, payload, topic, limit=1000)


def test_a_message_is_bound_to_its_topic_device_side_and_key() -> None:
    payload, topic = _sealed()
    for other in (DeviceTopic("dev-2", Kind.REPORTED), DeviceTopic("dev-1", Kind.INFO), DeviceTopic("dev-1", Kind.ACK)):
        with pytest.raises(MessageError):
            authenticator.unseal(KEY, payload, other, limit=1000)
    with pytest.raises(AuthenticationError):
        authenticator.unseal(bytes(32), payload, topic, limit=1000)


def test_an_unknown_authenticator_version_is_refused_by_number() -> None:
    payload, topic = _sealed()
    with pytest.raises(MessageError, match="version 2"):
        authenticator.unseal(KEY, payload.replace(b'"v":1', b'"v":2'), topic, limit=1000)


@given(st.binary(max_size=400))
def test_random_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        authenticator.unseal(KEY, payload, DeviceTopic("dev-1", Kind.INFO), limit=1000)


def test_a_signature_for_one_use_does_not_fit_another() -> None:
    private = Ed25519PrivateKey.generate()
    trusted = [signatures.public_key(private)]
    signature = signatures.sign(private, signatures.Context.MANIFEST, b"data")
    signatures.verify(trusted, signatures.Context.MANIFEST, b"data", signature, what="x")
    for context, data, keys in (
        (signatures.Context.GOAL, b"data", trusted),
        (signatures.Context.MANIFEST, b"datA", trusted),
        (signatures.Context.MANIFEST, b"data", []),
        (signatures.Context.MANIFEST, b"data", [signatures.public_key(Ed25519PrivateKey.generate())]),
    ):
        with pytest.raises(SignatureError):
            signatures.verify(keys, context, data, signature, what="x")


PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUSTED = [signatures.public_key(PRIVATE)]


@given(wire.goals)
def test_a_signed_goal_opens(document: goal.Goal) -> None:
    assert goal.open_goal(goal.sign_goal(PRIVATE, document), TRUSTED) == document


@given(wire.goals, st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_goal_never_opens_as_another(document: goal.Goal, position: int, flip: int) -> None:
    payload = bytearray(goal.sign_goal(PRIVATE, document))
    payload[position % len(payload)] ^= flip
    try:
        opened = goal.open_goal(bytes(payload), TRUSTED)
    except (MessageError, SignatureError):
        return
    assert opened == document  # a flip in a field name that nobody reads changes nothing that is signed


def _goal(**change: object) -> goal.Goal:
    base = goal.Goal(fleet="f", device="d", generation=1, counter=10, models={})
    return msgspec.structs.replace(base, **change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"fleet": "g"}, "other-fleet"), ({"device": "e"}, "other-device"), ({"generation": 2}, "other-generation")],
)
def test_a_goal_for_somebody_else_is_refused(change: dict[str, object], reason: str) -> None:
    goal.check_addressee(_goal(), fleet="f", device="d", generation=1)
    with pytest.raises(GoalRefusedError) as caught:
        goal.check_addressee(_goal(**change), fleet="f", device="d", generation=1)
    assert caught.value.reason_code == reason


def test_only_a_higher_counter_is_news_and_only_the_same_bytes_are_the_same_goal() -> None:
    assert goal.check_fresh(_goal(), b"x", None)
    assert goal.check_fresh(_goal(), b"x", (9, b"y"))
    assert not goal.check_fresh(_goal(), b"x", (10, b"x"))
    for held in ((10, b"y"), (11, b"x")):
        with pytest.raises(GoalRefusedError):
            goal.check_fresh(_goal(), b"x", held)


def test_a_goal_with_an_impossible_manifest_is_refused() -> None:
    ref = BlobRef(sha256="0" * 64, size=goal.MAX_MANIFEST + 1, chunks=[])
    model = goal.ModelGoal(deployment="d1", manifest=ref, signature=signatures.Signature(keyid="", sig=""))
    with pytest.raises(MessageError, match="manifest of m"):
        goal.open_goal(goal.sign_goal(PRIVATE, _goal(models={"m": model})), TRUSTED)


def test_every_error_has_its_own_code() -> None:
    def below(kind: type[LeptonError]) -> list[type[LeptonError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    codes = [kind.code for kind in below(LeptonError) if kind.__module__ == "lepton_edge.errors"]
    assert len(codes) == len(set(codes))
