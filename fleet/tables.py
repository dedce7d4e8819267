"""Answers as tables and documents for the commands."""

import io
import time
from textwrap import shorten

import msgspec
from rich.console import Console
from rich.table import Table

from fleet.api.documents import DeviceLine, Devices, TelemetryAnswer
from lepton_edge.cli.output import printable
from lepton_edge.wire.messages import ModelReport

_WIDTH = 200
_NOTE = 80


def _render(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=_WIDTH, markup=False, emoji=False, highlight=False).print(table)
    return "\n".join(printable(line.rstrip()) for line in out.getvalue().splitlines())


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="")


def device_table(found: Devices) -> str:
    """One line per device and model."""
    table = _table("DEVICE", "STATUS", "SEEN", "LABELS", "MODEL", "STATE", "SERVING", "VARIANT", "NOTE")
    for device in found.devices:
        for index, model in enumerate(_model_cells(device, found.bundles)):
            table.add_row(*(_own_cells(device) if index == 0 else [""] * 4), *model)
    return _render(table)


def _own_cells(device: DeviceLine) -> list[str]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(device.labels.items()))
    seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(device.seen_ms / 1000)) if device.seen_ms else "never"
    return [device.id, device.status, seen, labels]


def _model_cells(device: DeviceLine, bundles: dict[str, str]) -> list[list[str]]:
    cells = [_model_cell(name, report, device, bundles) for name, report in sorted(device.models.items())]
    return cells or [["", "", "", "", device.blocked]]


def _model_cell(name: str, report: ModelReport, device: DeviceLine, bundles: dict[str, str]) -> list[str]:
    label = bundles.get(report.bundle) or (f"{name}-{report.version}" if report.version else name)
    serving = bundles.get(report.serving, report.serving[:12]) or "nothing"
    variant = report.choice.variant if report.choice else ""
    note = device.blocked or f"{report.code} {report.reason}".strip()
    return [label, report.state, serving, variant, shorten(note, _NOTE, placeholder=" ...")]


def device_document(found: Devices, adopted: list[str]) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(found)
    del document["revision"]
    return {**document, "adopted": adopted}


def telemetry_table(answer: TelemetryAnswer) -> str:
    """Latencies in milliseconds; `-` where they are unknown."""
    table = _table("MODEL", "DEVICE", "VARIANT", "RUNTIME", "COUNT", "FAILED", "P50 MS", "P90 MS", "P99 MS", "ERROR")
    for line in answer.lines:
        figures = ["-" if value is None else f"{value:.3f}" for value in (line.p50_ms, line.p90_ms, line.p99_ms)]
        table.add_row(
            f"{line.model}-{line.version}",
            line.device or "all",
            line.variant or "all",
            line.runtime or "all",
            str(line.count),
            str(line.failures),
            *figures,
            f"{line.relative_error:.1%}",
        )
    return _render(table)
