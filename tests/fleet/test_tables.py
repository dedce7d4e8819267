"""What devices say is shown as they say it, and does nothing else."""

from fleet.api.documents import DeviceLine, Devices, Rollout, RolloutDevice
from fleet.pushing import _describe, _table
from fleet.tables import device_table
from lepton_edge.wire.messages import ModelReport, State

HOSTILE = "[/red] inputs are ['x'] \x1b[2J"


def test_a_reason_that_looks_like_markup_or_steers_a_terminal_is_only_text() -> None:
    report = ModelReport(deployment="r-1", state=State.FAILED, bundle="0" * 64, code="self-test", reason=HOSTILE)
    line = DeviceLine(
        id="cam",
        status="online",
        generation=1,
        seen_ms=1,
        labels={},
        adopt=False,
        blocked="",
        counter=1,
        reported_counter=1,
        models={"m": report},
        goal={},
        refused=None,
        info=None,
        counts={},
    )
    shown = device_table(Devices(devices=[line], unattributed={}, bundles={}))
    assert "[/red] inputs are ['x']" in shown
    assert "\x1b" not in shown


def test_live_progress_takes_any_reason() -> None:
    from rich.console import Console

    device = RolloutDevice(
        id="cam",
        state="failed",
        code="self-test",
        reason=HOSTILE,
        variant="",
        runtime="",
        p50_ms=None,
        p99_ms=None,
        progress=0.0,
        fetched_bytes=0,
        status="online",
    )
    rollout = Rollout(rollout="r", state="wave", bundle="m-1", devices=[device], bytes_published=0, seconds=0.0)
    console = Console(markup=False, emoji=False, highlight=False, width=120, record=True, quiet=True)
    console.print(_table(rollout))
    assert "[/red] inputs are ['x']" in _describe(device)
    assert "\x1b" not in _describe(device)
