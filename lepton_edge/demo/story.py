"""The demo's story: one model from a file to measured devices, its second version, and one that goes wrong."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click
import numpy as np

from lepton_edge.bundle import Bundle
from lepton_edge.demo import digits
from lepton_edge.demo.broken import break_bundle
from lepton_edge.demo.choices import check_choices, choice_table, read_choices
from lepton_edge.demo.stage import DemoError, Service, Stage
from lepton_edge.demo.traffic import Known, Traffic

DEVICES: Mapping[str, Sequence[str]] = {
    "camera-litert": ["litert"],
    "camera-ort": ["onnxruntime"],
    "camera-both": ["litert", "onnxruntime"],
}
"""The devices, and the runtimes that each may use."""
ROLLED_BACK = 4
WAIT = ("--wait", "--timeout", "90s")
"""What stands still ends with the names of the devices that are pending, not with a demo that hangs."""
PER_SECOND = 8.0
TELEMETRY_S = "2"


@dataclass
class Props:
    """What the first act leaves to the second."""

    digits_1: Path
    digits_2: Path
    digits_3: Path
    parity: Path


def play(keep: Path) -> None:
    """Run the demo; reports and bundles stay in `keep`, all else is removed.

    Raises:
        DemoError: a step did not do what it should: the demo is a test, too.
    """
    started = time.monotonic()
    with Stage(keep) as stage:
        props = _convert(stage)
        services = _start(stage)
        with Traffic(
            {name: service.http for name, service in services.items()}, _known(props), per_second=PER_SECOND
        ) as traffic:
            _push(stage, props, traffic)
        _show(stage, traffic)
    _farewell(keep, time.monotonic() - started)


def _title(text: str) -> None:
    click.secho(f"\n== {text}", bold=True, err=True)


def _convert(stage: Stage) -> Props:
    _title("Two trained models become int8, as ONNX and as TFLite, each with a promise on its accuracy")
    with resources.as_file(resources.files("lepton_edge.demo")) as folder:
        for name in ("digits", "parity"):
            shutil.copy(folder / f"{name}.onnx", stage.folder)
    images, labels = digits.held_out()
    np.savez(stage.folder / "digits.npz", x=images, y=labels)
    np.savez(stage.folder / "parity.npz", x=images, y=labels % 2)
    _convert_one(stage, "digits", "1", "--calibration", "100")
    _convert_one(stage, "parity", "1", "--calibration", "100")
    _convert_one(stage, "digits", "2", "--calibration", "200", "--seed", "2")
    broken = break_bundle(Bundle.open(stage.keep / "digits-2.lep"), version="3")
    broken.save(stage.keep / "digits-3-broken.lep")
    return Props(*(stage.keep / f"{name}.lep" for name in ("digits-1", "digits-2", "digits-3-broken", "parity-1")))


def _convert_one(stage: Stage, name: str, version: str, *options: str) -> None:
    target = stage.keep / f"{name}-{version}.lep"
    data = stage.folder / f"{name}.npz"
    stage.command(
        "convert",
        stage.folder / f"{name}.onnx",
        "--data",
        data,
        "--budget",
        "0.5",
        "--name",
        name,
        "--version",
        version,
        *options,
        "-o",
        target,
    )


def _known(props: Props) -> Known:
    """The broken version is not among the acceptable ones."""
    return Known([Bundle.open(props.digits_1), Bundle.open(props.digits_2)])


def _start(stage: Stage) -> dict[str, Service]:
    _title("A fleet: a manager with its broker, and three devices: one has LiteRT, one ONNX Runtime, one both")
    fleet = stage.folder / "fleet"
    stage.command("fleet", "init", fleet, "--telemetry", TELEMETRY_S)
    stage.service("manager", "fleet", "serve", "--http", "127.0.0.1:0")
    services = {}
    for device, runtimes in DEVICES.items():
        ticket = stage.folder / f"{device}.zip"
        stage.command("enroll", device, "--label", "kind=camera", "-o", ticket)
        only = [word for runtime in runtimes for word in ("--runtime", runtime)]
        where = ("--state", stage.folder / device, "--http", "127.0.0.1:0")
        services[device] = stage.service(device, "agent", "run", ticket, *only, *where)
    return services


def _push(stage: Stage, props: Props, traffic: Traffic) -> None:
    _title("Version 1 goes out; the devices are asked all the while")
    stage.command("push", props.digits_1, "--to", "all", *WAIT)
    _answered(traffic, "1")
    _title("A second model beside it")
    stage.command("push", props.parity, "--to", "kind=camera", *WAIT)
    _title("What each device fetched and measured, what it chose, and why")
    choices = read_choices(stage.document("devices"))
    check_choices(choices)
    click.echo(choice_table(choices))
    _title("Version 2 of the first")
    stage.command("push", props.digits_2, "--to", "all", *WAIT)
    _answered(traffic, "2")
    _title("Version 3, with one block of weights inverted on purpose: every device must refuse it")
    stage.command("push", props.digits_3, "--to", "all", *WAIT, status=ROLLED_BACK)
    _title("The second model goes")
    stage.command("remove", "parity", "--to", "all", *WAIT)
    _no_failures(traffic)


def _answered(traffic: Traffic, version: str) -> None:
    """Wait until each device has answered ten requests with `version`."""
    deadline = time.monotonic() + 30
    while any(tally.by_version[version] < 10 for tally in traffic.tallies.values()):
        if time.monotonic() > deadline:
            counts = {device: dict(tally.by_version) for device, tally in traffic.tallies.items()}
            raise DemoError(f"version {version} does not answer everywhere: {counts}{_first_problem(traffic)}")
        time.sleep(0.1)


def _no_failures(traffic: Traffic) -> None:
    if traffic.bad:
        raise DemoError(f"{traffic.bad} of {traffic.right + traffic.bad} requests went wrong{_first_problem(traffic)}")


def _first_problem(traffic: Traffic) -> str:
    problems = [problem for tally in traffic.tallies.values() for problem in tally.problems]
    return f"; the first: {problems[0]}" if problems else ""


def _show(stage: Stage, traffic: Traffic) -> None:
    _title("What the devices measured")
    _telemetry_arrived(stage, traffic)
    stage.command("devices")
    stage.command("telemetry")
    versions = sum((tally.by_version for tally in traffic.tallies.values()), start=Counter[str]())
    click.echo(
        f"{traffic.right} requests answered, {traffic.bad} failed or wrong "
        f"(version 1: {versions['1']}, version 2: {versions['2']}, broken version 3: {versions['3']})"
    )


def _telemetry_arrived(stage: Stage, traffic: Traffic) -> None:
    """Wait until the manager has counted every request that was answered."""
    deadline = time.monotonic() + 30
    counted = 0
    while counted < traffic.right and time.monotonic() < deadline:
        time.sleep(0.5)
        lines = stage.document("telemetry", "digits")["lines"]
        counted = sum(row["count"] for row in lines) if isinstance(lines, list) else 0
    if counted < traffic.right:
        raise DemoError(f"telemetry counts {counted} of {traffic.right} requests")


def _farewell(keep: Path, seconds: float) -> None:
    click.secho(f"\nDone in {seconds:.0f} s; the fleet is stopped and its files are gone.", bold=True)
    click.echo(f"The reports:  {keep / 'digits-1.report.html'}, {keep / 'parity-1.report.html'}")
    click.echo("Type next:    lepton-edge convert YOUR.onnx --data YOUR_IMAGES/ --preprocess P.toml -o model.lep")
    click.echo("              lepton-edge fleet init ./fleet && lepton-edge fleet serve")
