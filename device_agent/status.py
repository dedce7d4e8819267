"""What can be said of an agent from outside its process: its state folder, and what it needs."""

import base64
import binascii
import os
import socket
from pathlib import Path

from device_agent.info import probe
from device_agent.store import documents
from device_agent.store.journal import Journal
from device_agent.store.layout import Layout, is_in_use
from lepton_edge.errors import LeptonError, StorageError
from lepton_edge.typed import Record, decode
from lepton_edge.wire.broker import parse_broker
from lepton_edge.wire.goal import MAX_GOAL, Goal, SignedGoal
from lepton_edge.wire.messages import RuntimeInfo

_BROKER_TIMEOUT_S = 3.0
_INSTALL = {
    "litert": "pip install 'lepton-edge[agent]'",
    "onnxruntime": "pip install 'lepton-edge[agent,ort]'",
    "tflite-runtime": "pip install tflite-runtime 'numpy<2', where LiteRT has no wheel",
}


class Ready(Record, frozen=True, kw_only=True):
    """What an agent says of itself once its endpoint answers; also kept in its state folder."""

    id: str
    http: str
    socket: str
    pid: int
    broker: str
    v: int = 1


class ModelStatus(Record, frozen=True, kw_only=True):
    """One model, as its journal has it."""

    deployment: str
    state: str
    bundle: str
    version: str = ""
    variant: str = ""
    code: str = ""
    reason: str = ""


class AgentStatus(Record, frozen=True, kw_only=True):
    """The whole agent."""

    id: str
    running: bool
    http: str
    counter: int
    models: dict[str, ModelStatus]


class Check(Record, frozen=True, kw_only=True):
    """One finding of the doctor."""

    what: str
    ok: bool
    found: str


def read_status(state: Path) -> AgentStatus:
    """Read a state folder; nothing in it is changed. Raises StorageError."""
    layout = Layout(state)
    ready = _peek(layout.ready, Ready)
    running = is_in_use(state)
    models = {}
    for name in layout.known_models():
        journal = _peek(layout.model(name) / "journal.json", Journal)
        if journal is not None and not journal.removed_ms:
            models[name] = _model_status(journal)
    return AgentStatus(
        id=ready.id if ready else "",
        running=running,
        http=ready.http if ready and running else "",
        counter=_counter(layout.goal),
        models={name: model for name, model in models.items() if model is not None},
    )


def _peek(path: Path, kind: type[documents.R]) -> documents.R | None:
    """Like `documents.load`, but looks only: another process may be at work on the file."""
    try:
        return decode(path.read_bytes(), kind, what=str(path), limit=documents.MAX_DOCUMENT, error=StorageError)
    except (OSError, StorageError):
        return None


def _model_status(journal: Journal) -> ModelStatus | None:
    current, committed = journal.current, journal.committed
    if current is not None:
        choice = current.work.choice
        return ModelStatus(
            deployment=current.id,
            state=current.state,
            bundle=current.bundle,
            version=current.work.version,
            variant=choice.variant if choice else "",
            code=current.code,
            reason=current.reason,
        )
    if committed is not None:
        return ModelStatus(
            deployment=committed.deployment,
            state="committed",
            bundle=committed.bundle,
            version=committed.version,
            variant=committed.choice.variant if committed.choice else "",
        )
    return None


def _counter(path: Path) -> int:
    """Of the goal on disk, unverified: only to be shown."""
    try:
        signed = decode(path.read_bytes(), SignedGoal, what=str(path), limit=MAX_GOAL)
        return decode(base64.b64decode(signed.goal, validate=True), Goal, what=str(path), limit=MAX_GOAL).counter
    except (OSError, binascii.Error, LeptonError):
        return 0


def examine(state: Path) -> list[Check]:
    """Look at what an agent with this state folder needs."""
    info = probe(state, {})
    writable = os.access(state, os.W_OK | os.X_OK)
    checks = [
        Check(what="state folder", ok=writable, found=f"{state}, {info.disk_free // 2**20} MiB free"),
        _check_runtimes(info.runtimes),
    ]
    ready = _peek(Layout(state).ready, Ready)
    if ready is None:
        checks.append(Check(what="broker", ok=False, found="unknown: the agent has never run on this folder"))
    else:
        checks.append(_check_broker(ready.broker))
    return checks


def _check_runtimes(here: list[RuntimeInfo]) -> Check:
    """One runtime is enough."""
    names = {runtime.name for runtime in here}
    found = [f"{runtime.name} {runtime.version} ({', '.join(runtime.providers)})" for runtime in here]
    lacking = [f"{name} ({_INSTALL[name]})" for name in sorted(_INSTALL) if name not in names]
    parts = [", ".join(found) or "none", *([f"not here: {', '.join(lacking)}"] if lacking else [])]
    return Check(what="runtimes", ok=bool(here), found="; ".join(parts))


def _check_broker(url: str) -> Check:
    try:
        address = parse_broker(url)
        with socket.create_connection((address.host, address.port), timeout=_BROKER_TIMEOUT_S):
            return Check(what="broker", ok=True, found=f"{url} answers")
    except (OSError, LeptonError) as error:
        return Check(what="broker", ok=False, found=f"{url}: {error}")
