"""`lepton-agent` as a process: the ready line, exit statuses, one clear line for each mistake, and what it imports."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from device_agent.cli import command
from device_agent.store.layout import locked
from lepton_edge.wire.enrolment import DOCUMENT, Enrolment, new_key, save_enrolment

ROOT = Path(__file__).parents[2]


def agent(*arguments: object) -> subprocess.Popen[str]:
    code = "from device_agent.cli import main; main()"
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def ticket(tmp_path: Path) -> Path:
    path = tmp_path / "device.zip"
    enrolment = Enrolment(
        fleet="f",
        device="dev-1",
        generation=1,
        key=new_key(),
        broker="mqtt://127.0.0.1:1",
        goal_keys=[],
        operator_keys=[],
    )
    save_enrolment(enrolment, path)
    return path


def fails(*arguments: object, status: int = 1) -> str:
    """Run it, expect a failure, and return its one line."""
    process = agent(*arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_stops_in_order(ticket: Path, tmp_path: Path, number: signal.Signals) -> None:
    with agent(
        "run", ticket, "--state", tmp_path / "state", "--http", "127.0.0.1:0", "--socket", tmp_path / "s"
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["id"], ready["pid"], ready["socket"]) == ("dev-1", process.pid, str(tmp_path / "s"))
        with urllib.request.urlopen(f"{ready['http']}/v2/health/live", timeout=10) as response:
            assert response.status == 200
        status = CliRunner().invoke(command, ["status", "--state", str(tmp_path / "state"), "--json"])
        found = json.loads(status.stdout)
        assert (found["id"], found["running"], found["http"], found["models"]) == ("dev-1", True, ready["http"], {})
        assert process.stderr is not None
        assert "no connection to the broker at mqtt://127.0.0.1:1, trying again" in process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
    again = CliRunner().invoke(command, ["status", "--state", str(tmp_path / "state")])
    assert again.stdout.startswith("dev-1: not running, goal 0")


def test_a_port_in_use_is_one_clear_line(ticket: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = fails("run", ticket, "--state", tmp_path / "state", "--http", f"127.0.0.1:{port}")
    assert str(port) in line
    assert "in use" in line


def test_a_state_folder_in_use_is_one_clear_line(ticket: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        line = fails("run", ticket, "--state", tmp_path / "state", "--http", "127.0.0.1:0")
    assert "in use by another agent" in line


def test_a_state_folder_that_is_a_file_is_a_clear_error(ticket: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    fails("run", ticket, "--state", tmp_path / "state" / "below", "--http", "127.0.0.1:0")


@pytest.mark.parametrize("http", ["8600", "localhost:", "localhost:http", ":80", "h:99999"])
def test_an_impossible_address_is_wrong_usage(ticket: Path, tmp_path: Path, http: str) -> None:
    result = CliRunner().invoke(command, ["run", str(ticket), "--state", str(tmp_path / "s"), "--http", http])
    assert result.exit_code == 2
    assert "expected HOST:PORT" in result.stderr


@pytest.mark.parametrize("device", ["a/b", "a+b", "#", ""])
def test_a_device_id_that_a_topic_could_not_hold_is_refused(tmp_path: Path, device: str) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    document = {"fleet": "f", "device": device, "generation": 1, "key": new_key(), "broker": "mqtt://h"}
    (folder / DOCUMENT).write_text(json.dumps({**document, "goal_keys": [], "operator_keys": []}))
    result = CliRunner().invoke(command, ["run", str(folder), "--state", str(tmp_path / "s")])
    assert result.exit_code == 2
    assert "device" in result.stderr


def test_no_enrolment_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["run", str(tmp_path / "missing.zip")])
    assert result.exit_code == 2
    assert "missing.zip" in result.stderr


def test_the_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["doctor", "--state", str(tmp_path)])
    assert result.exit_code == 1
    assert "BAD broker: unknown" in result.stdout
    assert f"onnxruntime {version('onnxruntime')} (CPU)" in result.stdout
    assert "1 of 3 checks failed" in result.stderr


def test_the_doctor_says_how_to_get_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.info.installed", dict)
    result = CliRunner().invoke(command, ["doctor", "--state", str(tmp_path)])
    assert "BAD runtimes: none; not here: litert (pip install 'lepton-edge[agent]'), onnxruntime (pip" in result.stdout


def test_a_runtime_that_nobody_knows_is_wrong_usage(tmp_path: Path, ticket: Path) -> None:
    words = ["run", str(ticket), "--state", str(tmp_path / "state"), "--runtime", "abacus"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert "no runtime is called abacus" in result.stderr


def test_status_without_a_state_folder_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = CliRunner().invoke(command, ["status"])
    assert result.exit_code == 2
    assert "say which with --state" in result.stderr


FORBIDDEN = ["onnx", "onnx_ir", "torch", "sqlalchemy", "alembic", "rich", "fleet", "converters"]


def test_the_agent_imports_nothing_heavy() -> None:
    code = (
        "import sys, device_agent.agent, device_agent.cli, device_agent.status\n"
        f"print([name for name in {FORBIDDEN} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
