"""What the devices fetched, measured and chose, as they reported it; and whether that is what they should have done."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from lepton_edge.demo.stage import DemoError
from lepton_edge.typed import Record
from lepton_edge.wire.messages import Info, ModelReport

COLUMNS = ("MODEL", "DEVICE", "HAS", "FETCHED", "KB", "CHOSE", "P50 MS", "WHY")


class Device(Record, frozen=True, kw_only=True):
    """What `devices --json` says of one device, as far as it is wanted here."""

    id: str
    models: dict[str, ModelReport]
    info: Info | None


class Chosen(NamedTuple):
    """One device's choice for one model.

    Attributes:
        has: the device's runtimes.
        fetched: the variants that it fetched and measured, the fastest first.
        runtimes: what measured each of `fetched`.
        kb: 1000 bytes that it took in for them, the golden test and the manifest.
        p50_ms: of the chosen variant, in the device's own test.
        why: in the device's words.
    """

    model: str
    device: str
    has: Sequence[str]
    fetched: Sequence[str]
    runtimes: Sequence[str]
    kb: int
    variant: str
    p50_ms: float
    why: str


def read_choices(document: object) -> list[Chosen]:
    """Read what `devices --json` printed: by model, then by device.

    Raises:
        DemoError: a device has not said what it is or chose.
    """
    devices = msgspec.convert(document, type=dict[str, object])["devices"]
    found = [choice for device in msgspec.convert(devices, type=list[Device]) for choice in _of_device(device)]
    return sorted(found, key=lambda choice: (choice.model, choice.device))


def _of_device(device: Device) -> Iterator[Chosen]:
    for name, report in device.models.items():
        if device.info is None or report.choice is None:
            raise DemoError(f"{device.id} has not said what it is, or what it chose for {name}")
        measured = sorted(report.measured, key=lambda one: one.p50_ms)
        yield Chosen(
            model=f"{name}-{report.version}",
            device=device.id,
            has=[runtime.name for runtime in device.info.runtimes],
            fetched=[one.variant for one in measured],
            runtimes=[one.runtime for one in measured],
            kb=round(report.choice.fetched / 1000),
            variant=report.choice.variant,
            p50_ms=report.choice.p50_ms,
            why=report.choice.reason,
        )


def check_choices(choices: Sequence[Chosen]) -> None:
    """Each device must have measured with its own runtimes alone, and taken the fastest.

    Raises:
        DemoError: one did not.
    """
    for choice in choices:
        if not set(choice.runtimes) <= set(choice.has):
            raise DemoError(f"{choice.device} has {', '.join(choice.has)}, and measured with {set(choice.runtimes)}")
        if choice.variant not in choice.fetched[:1]:
            raise DemoError(
                f"{choice.device} took {choice.variant} of {choice.model}; from fast to slow: {choice.fetched}"
            )


def choice_table(choices: Iterable[Chosen]) -> str:
    """Aligned columns, one line for each device and model."""
    rows = [COLUMNS, *(_cells(choice) for choice in choices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _cells(choice: Chosen) -> tuple[str, ...]:
    fetched, has = " + ".join(choice.fetched), " + ".join(sorted(choice.has))
    p50 = f"{choice.p50_ms:.3f}"
    return choice.model, choice.device, has, fetched, str(choice.kb), choice.variant, p50, choice.why
