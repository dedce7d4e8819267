"""`push`: its options, its one rollout, and what a person sees of it on stderr."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fleet.api.client import Client
from fleet.api.documents import Rollout, RolloutDevice, RolloutRequest
from fleet.commands import operator_key, parse_duration, watch
from fleet.core.rollout import RolloutState
from fleet.folder import find_fleet
from lepton_edge.bundle import Bundle
from lepton_edge.cli.output import Output, printable
from lepton_edge.errors import NotYetSupportedError, RolledBackError, UsageError
from lepton_edge.typed import Record
from lepton_edge.wire.goal import Limits, Probation
from lepton_edge.wire.messages import State

_REASON = 160
"""Characters of a reason that a person gets; the JSON has it whole."""
_LATER = {"soak": ("", "0", "0s"), "max_failures": ("", "0", "0%"), "p99": ("",)}


class PushOptions(Record, frozen=True, kw_only=True):
    """The command's options, as click gives them; durations as text."""

    to: str
    wait: bool = False
    timeout: str = ""
    dry_run: bool = False
    probation: str = "5s"
    max_errors: int = 0
    max_candidates: int = 2
    threads: int = 1
    memory: int | None = None
    waves: str = ""
    soak: str = ""
    max_failures: str = ""
    p99: str = ""

    @classmethod
    def read(cls, options: Mapping[str, object]) -> "PushOptions":
        """Raises NotYetSupportedError: an option asks for more than one wave with no gate."""
        found = msgspec.convert(dict(options), cls)
        if found.waves not in ("", "100%"):
            raise NotYetSupportedError(f"--waves {found.waves}: not yet: several waves; all devices are one wave")
        for name, harmless in _LATER.items():
            value = getattr(found, name)
            if value not in harmless:
                raise NotYetSupportedError(f"--{name.replace('_', '-')} {value}: not yet; leave it out")
        return found

    @property
    def timeout_s(self) -> float | None:
        return parse_duration(self.timeout, what="--timeout") if self.timeout else None

    def request(self, bundle: Bundle) -> RolloutRequest:
        """Raises UsageError: a value is out of range."""
        probation_s = parse_duration(self.probation, what="--probation")
        if probation_s > 86_400:
            raise UsageError(f"--probation {self.probation}: at most 24h")
        return RolloutRequest(
            digest=bundle.digest,
            name=bundle.manifest.name,
            version=bundle.manifest.version,
            to=self.to,
            dry_run=self.dry_run,
            limits=Limits(max_candidates=self.max_candidates, memory_bytes=self.memory, threads=self.threads),
            probation=Probation(probation_s=probation_s, max_errors=self.max_errors),
        )


def push(output: Output, path: Path, fleet_dir: Path | None, options: PushOptions) -> None:
    """Run the command.

    Raises:
        RolledBackError: with `wait`: a device failed; the document is printed all the same.
    """
    folder, bundle = find_fleet(fleet_dir), Bundle.open(path)
    request, timeout_s = options.request(bundle), options.timeout_s
    with Client(folder) as client:
        if not options.dry_run and not client.is_published(bundle):
            client.publish(bundle, operator_key(folder))
        rollout = client.push(request)
        if options.wait and not options.dry_run:
            with _progress() as show:
                rollout = watch(client, rollout, timeout_s=timeout_s, show=show)
    output.document(_document(rollout), text=_summary(rollout))
    if rollout.state == RolloutState.ROLLED_BACK:
        raise RolledBackError(f"{rollout.bundle}: rolled back: {_blame(rollout)}")


def _document(rollout: Rollout) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(rollout)
    del document["revision"]
    return document


def _blame(rollout: Rollout) -> str:
    """The devices that failed, and the first one's reason: devices of a kind fail alike."""
    failed = [device for device in rollout.devices if device.state == State.FAILED]
    if not failed:
        return "no device reported why"
    names = ", ".join(device.id for device in failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
    return printable(f"{names}: {failed[0].code}: {shorten(failed[0].reason, _REASON, placeholder=' ...')}")


def _summary(rollout: Rollout) -> str:
    lines = [f"{rollout.rollout or 'dry run'}  {rollout.bundle}  {rollout.state}"]
    lines += [f"  {device.id}  {_describe(device)}" for device in rollout.devices]
    lines.append(f"  {rollout.bytes_published} bytes published, {rollout.seconds:.1f} s")
    return "\n".join(lines)


def _describe(device: RolloutDevice) -> str:
    text: str = device.state
    if device.state == State.DOWNLOADING:
        text += f" {device.progress:.0%}"
    if device.variant:
        text += f"  {device.variant} on {device.runtime}"
    if device.p50_ms is not None and device.p99_ms is not None:
        text += f"  p50 {device.p50_ms:.3f} ms, p99 {device.p99_ms:.3f} ms"
    return printable(f"{text}  {device.code} {shorten(device.reason, _REASON, placeholder=' ...')}".rstrip())


@contextmanager
def _progress() -> Iterator[Callable[[Rollout], None]]:
    """A live table on a terminal; a line per change elsewhere."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield _line_printer()
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield lambda rollout: live.update(_table(rollout))


def _table(rollout: Rollout) -> Table:
    table = Table("device", "state", "", title=f"{rollout.bundle}  {rollout.state}", title_justify="left")
    for device in rollout.devices:
        state, _, rest = _describe(device).partition("  ")
        table.add_row(device.id, state, rest)
    return table


def _line_printer() -> Callable[[Rollout], None]:
    shown: dict[str, str] = {}

    def show(rollout: Rollout) -> None:
        for device in rollout.devices:
            if shown.get(device.id) != device.state:
                shown[device.id] = device.state
                print(f"{device.id}: {_describe(device)}", file=sys.stderr, flush=True)  # noqa: T201 - progress

    return show
