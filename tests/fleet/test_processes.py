"""The commands, end to end, in real processes: what they print, how they exit, and what a SIGKILL leaves."""

import asyncio
import os
import re
import shutil
import socket
import stat

import pytest

from fleet.broker.process import BrokerProcess, answers, free_port
from lepton_edge.wire.enrolment import load_enrolment
from tests.fleet.device_twin import DeviceTwin, eventually, window
from tests.fleet.processes import Place

ONE_LINE = re.compile(r"lepton-edge: [^\n]+\n")


@pytest.fixture
async def place(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A working directory whose ./fleet has a broker port of its own."""
    found = Place(tmp_path)
    monkeypatch.chdir(tmp_path)
    made = await found.call("fleet", "init", "fleet", "--broker-port", str(free_port()), "--telemetry", "1s")
    assert made.status == 0, made.err
    return found


async def enrol(place: Place, device: str, *more: str) -> DeviceTwin:
    path = place.root / f"{device}.zip"
    result = await place.call("enroll", device, "-o", str(path), *more)
    assert result.status == 0, result.err
    return DeviceTwin(load_enrolment(path))


async def test_the_whole_story(place: Place) -> None:
    early = await enrol(place, "early", "--label", "site=a")  # no manager runs yet
    async with place.serving() as server:
        assert set(server.line) == {"http", "broker", "pid"}
        assert server.line["broker"] == early.enrolment.broker
        late = await enrol(place, "late")
        async with early.staying(), late.staying():
            published = await place.call("publish", place.bundle("other"), "--json")
            assert published.json()["bundle"] == "other-1"
            pushed = await place.run("push", place.bundle("digits"), "--to", "all", "--wait", "--json")
            assert pushed.status == 0, pushed.err
            document = pushed.json()
            assert document["state"] == "done"
            assert document["bundle"] == "digits-1"
            assert document["bytes_published"] > 100_000
            assert [(d["id"], d["state"], d["variant"]) for d in document["devices"]] == [
                ("early", "committed", "int8"),
                ("late", "committed", "int8"),
            ]
            late.fails = {"digits"}
            failed = await place.run("push", place.bundle("digits", "2"), "--to", "late", "--wait", "--json")
            assert failed.status == 4
            assert failed.json()["state"] == "rolled-back"
            assert failed.json()["devices"][0]["code"] == "self-test"
            assert "late: self-test: told to fail" in failed.err

            await early.send_windows(window())
            await eventually(lambda: any(early.windows_acked()))
            figures = (await place.call("telemetry", "digits", "--json")).json()["lines"]
            assert [(line["device"], line["count"]) for line in figures] == [("early", 2)]
            assert figures[0]["p50_ms"] == pytest.approx(1.0, rel=0.01)

            removed = await place.call("remove", "digits", "--to", "site=a", "--wait")
            assert removed.status == 0, removed.err
            listed = (await place.call("devices", "--json")).json()["devices"]
            assert {device["id"]: list(device["models"]) for device in listed} == {"early": [], "late": ["digits"]}
        assert (await server.stop()).err == ""
    assert not (place.root / "fleet" / "serve.json").exists()


async def test_init_keeps_secrets_to_their_owner_and_never_overwrites(place: Place) -> None:
    for name in ("keys/operator.json", "keys/goal.json", "token", "fleet.db", "fleet.toml"):
        assert stat.S_IMODE((place.root / "fleet" / name).stat().st_mode) == 0o600, name
    again = await place.call("fleet", "init", "fleet")
    assert again.status == 2
    assert "a fleet is there already; nothing was changed" in again.err
    del place.environment["LEPTON_PASSPHRASE_FILE"]
    asked = await place.run("fleet", "init", "other")
    assert "set LEPTON_PASSPHRASE_FILE" in asked.err
    assert not (place.root / "other").exists()


async def test_wrong_passphrase_publishes_nothing(place: Place) -> None:
    bundle = place.bundle("digits")
    async with place.serving():
        (place.root / "passphrase").write_text("wrong")
        result = await place.call("publish", bundle)
        assert result.status == 1
        assert "the passphrase is wrong" in result.err


async def test_bad_requests_are_one_clear_line(place: Place) -> None:
    bundle = place.bundle("digits")
    damaged = place.root / "damaged.lep"
    os.truncate(shutil.copy(bundle, damaged), 500)
    cases = [
        (["enroll", "a/b"], 1, "device id 'a/b' is not allowed"),
        (["enroll", "a+"], 1, "device id 'a+' is not allowed"),
        (["enroll", "#"], 1, "device id '#' is not allowed"),
        (["push", bundle, "--to", "all"], 1, "no manager serves"),
        (["fleet", "serve", "--listen", "0.0.0.0"], 1, "not yet"),
        (["fleet", "serve", "--http", "0.0.0.0:1"], 1, "not yet"),
        (["fleet", "serve", "--http", "nonsense"], 2, "expected HOST:PORT"),
        (["devices", "--fleet", "nowhere"], 2, "no fleet there"),
    ]
    for arguments, status, says in cases:
        result = await place.call(*arguments)
        assert (result.status, says in result.err) == (status, True), (arguments, result.err)
        assert ONE_LINE.fullmatch(result.err), result.err
    await enrol(place, "dev-1")
    async with place.serving():
        cases = [
            (["push", bundle, "--to", "a/b"], 1, "'a/b' is not enrolled"),
            (["push", bundle, "--to", "all", "--waves", "1,10%"], 1, "not yet: several waves"),
            (["push", bundle, "--to", "all", "--p99", "20ms"], 1, "not yet"),
            (["push", str(damaged), "--to", "all"], 1, "no bundle, or truncated"),
            (["push", bundle, "--to", "dev-1", "--wait", "--timeout", "200ms"], 1, "remains for dev-1 (pending)"),
            (["remove", "nothing", "--to", "all"], 1, "no device of 'all' shall run a model 'nothing'"),
            (["devices", "--adopt", "dev-1"], 1, "nothing to adopt"),
        ]
        for arguments, status, says in cases:
            result = await place.call(*arguments)
            assert (result.status, says in result.err) == (status, True), (arguments, result.err)
        dry = (await place.call("push", bundle, "--to", "all", "--dry-run", "--json")).json()
        assert (dry["state"], dry["rollout"], dry["devices"][0]["reason"]) == (
            "dry-run",
            "",
            "the device is never-seen",
        )


async def test_unreachable_broker_is_one_clear_line(place: Place) -> None:
    result = await place.run("fleet", "serve", "--broker", "mqtt://127.0.0.1:1", "--http", "127.0.0.1:0")
    assert result.status == 1
    assert ONE_LINE.fullmatch(result.err)
    assert "broker mqtt://127.0.0.1:1 does not answer" in result.err


async def test_port_in_use_and_second_manager_are_one_clear_line(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = await place.run("fleet", "serve", "--http", f"127.0.0.1:{port}")
        assert result.status == 1
        assert ONE_LINE.fullmatch(result.err)
        assert f"127.0.0.1:{port}: " in result.err
        assert "in use" in result.err
    async with place.serving() as server:
        second = await place.run("fleet", "serve", "--http", "127.0.0.1:0")
        assert second.status == 1
        assert "another process serves this fleet" in second.err
        other = Place(place.root)
        port = str(server.line["broker"]).rsplit(":", 1)[1]
        await other.call("fleet", "init", "second", "--broker-port", port)
        result = await other.run("fleet", "serve", "--fleet", "second", "--http", "127.0.0.1:0")
        assert result.status == 1
        assert ONE_LINE.fullmatch(result.err)
        assert f":{port}: Address already in use; choose another port" in result.err


async def test_manager_killed_mid_push_completes_it_after_its_restart(place: Place) -> None:
    """With the embedded broker, which dies and comes back with the manager; `push --wait` sees it through."""
    twin = await enrol(place, "dev-1")
    one = window()
    async with place.serving() as server, twin.staying():
        bundle = place.bundle("digits", size=6_000_000)
        push = await place.start("push", bundle, "--to", "all", "--wait", "--json")
        await eventually(lambda: twin.received > 5)
        await server.kill()
        broker = str(server.line["broker"]).rsplit(":", 1)[1]
        await eventually(lambda: not answers("127.0.0.1", int(broker)))
        await server.start()
        result = await place.end(push)
        assert result.status == 0, result.err
        assert result.json()["state"] == "done"
        await eventually(lambda: twin._client is not None)
        await twin.send_windows(one)
        await twin.send_windows(one)
        await eventually(lambda: list(twin.windows_acked()).count(one.id) == 2)
        assert (await place.call("telemetry", "--json")).json()["lines"][0]["windows"] == 1


async def test_manager_alone_killed_mid_push_on_a_broker_of_ours(place: Place, broker: BrokerProcess) -> None:
    async with place.serving("--broker", broker.url) as server:
        twin = await enrol(place, "dev-1")
        assert twin.enrolment.broker == broker.url
        async with twin.online():
            bundle = place.bundle("digits", size=6_000_000)
            push = await place.start("push", bundle, "--to", "all", "--wait", "--json")
            await eventually(lambda: twin.received > 5)
            await server.kill()
            await server.start()
            result = await place.end(push)
            assert result.status == 0, result.err
            assert result.json()["devices"][0]["state"] == "committed"


async def test_embedded_broker_that_crashes_is_started_again(place: Place) -> None:
    import psutil

    twin = await enrol(place, "dev-1")
    async with place.serving() as server, twin.staying():
        for child in psutil.Process(server.process.pid).children():
            child.kill()
        await eventually(lambda: not server_answers(server.line))
        await eventually(lambda: server_answers(server.line))
        pushed = await place.run("push", place.bundle("digits"), "--to", "all", "--wait", "--timeout", "30s")
        assert pushed.status == 0, pushed.err


def server_answers(line: dict[str, object]) -> bool:
    return answers("127.0.0.1", int(str(line["broker"]).rsplit(":", 1)[1]))


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
async def test_broker_lost_while_serving_is_waited_for(place: Place, broker: BrokerProcess) -> None:
    async with place.serving("--broker", broker.url):
        twin = await enrol(place, "dev-1")
        broker.kill()
        assert (await place.call("devices")).status == 0
        await asyncio.to_thread(broker.restart)
        async with twin.online():
            pushed = await place.run("push", place.bundle("digits"), "--to", "all", "--wait", "--timeout", "40s")
            assert pushed.status == 0, pushed.err
