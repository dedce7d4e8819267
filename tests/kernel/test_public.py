"""The public face: names, laziness, exit statuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import lepton_edge
from lepton_edge import errors
from lepton_edge.cli import COMMANDS, main
from lepton_edge.cli.output import ErrorCommand, Output, printable


def test_every_public_name_loads() -> None:
    for name in lepton_edge.__all__:
        assert getattr(lepton_edge, name) is not None


def without(package: str) -> str:
    """Code that makes a package look as if it were not installed."""
    return f"""
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
"""


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["convert", "m.onnx", "-o", "m.lep"], "onnx", "convert"),
        (["inspect", "m.tflite"], "onnxruntime", "convert"),
        (["devices"], "httpx", "fleet"),
    ],
)
def test_a_command_whose_extra_is_missing_says_which(arguments: list[str], package: str, extra: str) -> None:
    code = without(package) + f"from lepton_edge.cli import main; main({arguments!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = f"this needs the package {package}, which is not installed: pip install 'lepton-edge[{extra}]'"
    assert (ended.returncode, ended.stderr) == (1, f"lepton-edge: {told}\n")


def test_a_public_name_whose_extra_is_missing_says_which() -> None:
    code = without("onnx") + "import lepton_edge as le; le.load_model"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr.endswith(
        "this needs the package onnx, which is not installed: pip install 'lepton-edge[convert]'\n"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lepton_edge.nonsense


def test_importing_the_kernel_imports_no_room_and_nothing_heavy() -> None:
    code = "import sys, lepton_edge, lepton_edge.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"converters", "device_agent", "fleet", "onnx", "onnxruntime", "sqlalchemy", "rich", "numpy", "PIL"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_runtime_keeps_no_device_id_and_sends_nothing(tmp_path: Path) -> None:
    """ONNX Runtime leaves its session file in the temporary folder as soon as its telemetry starts."""
    load = "import onnxruntime; onnxruntime.get_available_providers()"
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", f"import lepton_edge; {load}"], env=env, check=True)
    assert list(tmp_path.rglob("*")) == []


def _failing(error: errors.LeptonError) -> click.Command:
    @click.command(cls=ErrorCommand)
    @click.pass_obj
    def command(output: Output) -> None:
        if output.as_json:
            output.document({"ok": True})
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BundleError("x.lep: truncated"), 1),
        (errors.UsageError("no"), 2),
        (errors.BudgetError("over"), 3),
        (errors.RolledBackError("back"), 4),
    ],
)
def test_an_error_is_one_line_and_its_exit_status(error: errors.LeptonError, status: int) -> None:
    result = CliRunner().invoke(_failing(error))
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == f"lepton-edge: {error}\n"


def test_verbose_shows_the_traceback_and_json_stays_alone_on_stdout() -> None:
    result = CliRunner().invoke(_failing(errors.BundleError("broken")), ["--json"])
    assert json.loads(result.stdout) == {"ok": True}
    assert "Traceback" not in result.stderr


def test_wrong_usage_exits_2() -> None:
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2


def test_what_a_device_says_cannot_steer_the_terminal() -> None:
    assert printable("fail\x1b[2J\x07ed\n[red]ä") == "fail [2J ed [red]ä"
