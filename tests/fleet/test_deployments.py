"""Pushes, seen from the manager, with twins on both brokers."""

from tests.fleet.bundles import make_bundle
from tests.fleet.conftest import Desk
from tests.fleet.device_twin import window


async def test_push_reaches_all_devices_and_counts_its_bytes_once(desk: Desk) -> None:
    twins = [await desk.enrol(f"dev-{n}") for n in range(3)]
    bundle = make_bundle(size=300_000)
    async with twins[0].online(), twins[1].online(), twins[2].online():
        done = await desk.ended(await desk.push(bundle))
    assert done.state == "done"
    assert [(d.id, d.state, d.variant, d.p50_ms) for d in done.devices] == [
        (f"dev-{n}", "committed", "int8", 1.0) for n in range(3)
    ]
    size = len(bundle.manifest_bytes) + sum(ref.size for ref in bundle.manifest.files.values())
    assert size <= done.bytes_published <= 2 * size


async def test_windows_count_once_when_repeated(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    one, other = window(), window()
    async with twin.online():
        await twin.send_windows(one, other)
        await twin.send_windows(one)
        await desk.until("dev-1", lambda _: sorted(twin.windows_acked()) == sorted([one.id, other.id, one.id]))
    from fleet.telemetry.summary import summarise

    lines = await desk.manager.database.run(lambda session: summarise(session, model="", by="all"))
    assert [(line.device, line.windows, line.count) for line in lines] == [("dev-1", 2, 4)]
