"""Hypothesis strategies for what travels on the wire."""

from hypothesis import strategies as st

from lepton_edge.telemetry.histogram import MAX_BUCKETS, Histogram, Recorder
from lepton_edge.telemetry.window import Window
from lepton_edge.wire import messages
from lepton_edge.wire.chunks import BlobRef, blob_ref
from lepton_edge.wire.goal import Goal, Limits, ModelGoal, Probation, Settings
from lepton_edge.wire.signatures import Signature
from lepton_edge.wire.topics import Kind

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
naturals = st.integers(0, 2**63 - 1)
short = st.text(max_size=40)
seconds = st.floats(0, 1e4, allow_nan=False)


def _histogram(values: list[float]) -> Histogram:
    recorder = Recorder()
    for value in values:
        recorder.record(value)
    return recorder.snapshot()


latencies = st.lists(st.floats(1e-7, 2e3), max_size=60)
histograms = latencies.map(_histogram)
assert MAX_BUCKETS == 1914
windows = st.builds(
    Window,
    id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    model=short,
    version=short,
    bundle=short,
    variant=short,
    runtime=short,
    start_ms=naturals,
    end_ms=naturals,
    latency=histograms,
    failures=st.integers(0, 1000),
    dropped=st.integers(0, 1000),
)
choices = st.builds(
    messages.Choice,
    variant=short,
    runtime=short,
    p50_ms=seconds,
    p99_ms=seconds,
    golden_ratio=seconds,
    fetched=naturals,
)
reports = st.builds(
    messages.ModelReport,
    deployment=names,
    state=st.sampled_from(messages.State),
    bundle=digests,
    version=short,
    code=short,
    reason=short,
    serving=st.one_of(st.just(""), digests),
    choice=st.none() | choices,
    measured=st.lists(choices, max_size=3),
    progress=st.floats(0, 1),
    until_ms=naturals,
    returns_to=st.none() | st.sampled_from(messages.State),
)
bodies: dict[Kind, st.SearchStrategy[messages.Body]] = {
    Kind.STATUS: st.builds(messages.Status, state=st.sampled_from(["online", "offline"])),
    Kind.INFO: st.builds(
        messages.Info,
        agent=short,
        system=short,
        machine=short,
        cpu=short,
        cpu_flags=st.lists(short, max_size=5),
        cores=naturals,
        memory=naturals,
        disk_free=naturals,
        runtimes=st.lists(st.builds(messages.RuntimeInfo, name=short, version=short), max_size=3),
        labels=st.dictionaries(short, short, max_size=3),
    ),
    Kind.REPORTED: st.builds(
        messages.Reported,
        counter=naturals,
        models=st.dictionaries(names, reports, max_size=3),
        refused=st.none() | st.builds(messages.Refusal, code=short, reason=short, counter=st.none() | naturals),
    ),
    Kind.TELE: st.builds(messages.Telemetry, windows=st.lists(windows, max_size=4)),
    Kind.NEED: st.builds(messages.Need, blob=digests, first=st.integers(0, 65_535), bits=st.just("AA==")),
    Kind.ACK: st.builds(
        messages.Ack,
        boot=naturals,
        seen=st.dictionaries(
            st.sampled_from(Kind),
            st.builds(messages.Seen, generation=naturals, boot=naturals, seq=naturals),
            max_size=4,
        ),
        windows=st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), max_size=4),
    ),
}
blobs: st.SearchStrategy[BlobRef] = st.binary(max_size=200_000).map(blob_ref)
small_blobs: st.SearchStrategy[BlobRef] = st.binary(max_size=100).map(blob_ref)
goals = st.builds(
    Goal,
    fleet=short,
    device=names,
    generation=naturals,
    counter=naturals,
    models=st.dictionaries(
        names,
        st.builds(
            ModelGoal,
            deployment=names,
            manifest=small_blobs,
            signature=st.builds(Signature, keyid=short, sig=short),
            limits=st.builds(Limits, max_candidates=st.integers(1, 16)),
            probation=st.builds(Probation, probation_s=st.floats(0, 100)),
        ),
        max_size=3,
    ),
    settings=st.builds(Settings, telemetry_s=st.floats(0.1, 100)),
)
