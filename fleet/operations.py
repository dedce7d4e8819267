"""What an operator asks of the manager: each is one transaction, or a check and one transaction."""

import asyncio
import base64
import binascii

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.api import views
from fleet.api.documents import PublishAnswer, PublishRequest, Rollout, RolloutRequest
from fleet.clock import now_ms
from fleet.core.targets import select as select_targets
from fleet.enrolment import enrolment_of
from fleet.errors import ConflictError, UnknownError
from fleet.manager import Manager
from fleet.registry import bundles, devices, rollouts
from fleet.registry.models import GoalModelRow
from fleet.registry.rollouts import Plan
from lepton_edge.bundle.manifest import Manifest, identity, read_manifest
from lepton_edge.errors import BundleError
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.signatures import Context, verify


async def publish(manager: Manager, request: PublishRequest) -> PublishAnswer:
    """Accept a signed manifest once all its files are here; until then say which are missing.

    Raises:
        BundleError, SignatureError: the manifest, its signature or a file's chunks do not hold.
        ConflictError: the name and version are taken by other content.
    """
    try:
        document = base64.b64decode(request.manifest, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise BundleError("manifest: not base64") from cause
    manifest = read_manifest(document)
    label, digest = f"{manifest.name}-{manifest.version}", identity(document)
    verify(manager.folder.operator_keys(), Context.MANIFEST, document, request.signature, what=label)
    await manager.database.run(lambda session: bundles.check_known(session, manifest.name, manifest.version, digest))
    missing = sorted({ref.sha256 for ref in manifest.files.values() if not manager.blobs.has(ref.sha256)})
    if missing:
        return PublishAnswer(bundle=label, digest=digest, published=False, missing=missing)
    await asyncio.to_thread(_check_files, manager, manifest, document)

    def work(session: Session) -> tuple[str, set[str]]:
        added = bundles.add(session, document, request.signature, now_ms())
        # Adopted devices may have waited for this very bundle.
        waiting = session.scalars(select(GoalModelRow.device).where(GoalModelRow.digest == digest))
        return added, set(waiting)

    await manager.change(work)
    return PublishAnswer(bundle=label, digest=digest, published=True, missing=[])


def _check_files(manager: Manager, manifest: Manifest, document: bytes) -> None:
    for path, ref in manifest.files.items():
        manager.blobs.check(ref, what=f"{manifest.name}-{manifest.version}: {path}")
    manager.blobs.put(document)


async def push(manager: Manager, request: RolloutRequest) -> Rollout:
    """Start a rollout, or say what it would begin with.

    Raises:
        UnknownError: the bundle is not published, or `to` selects nothing.
    """

    def work(session: Session) -> tuple[Rollout, set[str]]:
        chosen = select_targets(request.to, devices.all_labels(session))
        if request.dry_run:
            bundles.check_known(session, request.name, request.version, request.digest)
            return views.dry_run(session, chosen, f"{request.name}-{request.version}"), set()
        plan = Plan(request.digest, request.to, chosen, request.limits, request.probation)
        started = rollouts.start(session, plan, now_ms())
        rollouts.advance_all(session, now_ms())
        return views.rollout(session, started, now_ms()), set(chosen)

    return await manager.change(work)


async def remove(manager: Manager, model: str, to: str) -> list[str]:
    """Take a model from devices; returns those that had it.

    Raises:
        UnknownError: none of them shall run it.
        ConflictError: one waits for adoption, which would bring the model back.
    """

    def work(session: Session) -> tuple[list[str], set[str]]:
        chosen = select_targets(to, devices.all_labels(session))
        waiting = sorted(set(chosen) & set(devices.lost(session)))
        if waiting:
            raise ConflictError(f"{waiting[0]} waits for adoption: `lepton-edge devices --adopt {waiting[0]}` first")
        changed = rollouts.remove(session, model, chosen)
        if not changed:
            raise UnknownError(f"no device of {to!r} shall run a model {model[:80]!r}; see `lepton-edge devices`")
        return changed, set(changed)

    return await manager.change(work)


async def adopt(manager: Manager, device: str) -> list[str]:
    """Take the reported models of a device, or of all that need it, for its goal."""

    def work(session: Session) -> tuple[list[str], set[str]]:
        chosen = devices.lost(session) if device == "all" else [device]
        for one in chosen:
            devices.adopt(session, one, keep=rollouts.open_models(session, one))
        return chosen, set(chosen)

    return await manager.change(work)


async def enrol(manager: Manager, device: str, labels: dict[str, str]) -> Enrolment:
    """Enrol a device with the broker that this manager is on."""
    member, kept = await manager.enrol(device, labels)
    return enrolment_of(manager.folder, member, kept, fleet=manager.config.fleet, broker=manager.address.url)
