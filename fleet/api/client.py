"""The API from the operator's side: what the commands call."""

import base64
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.api.documents import (
    AdoptRequest,
    Bundles,
    DeviceIds,
    Devices,
    EnrolRequest,
    FleetAnswer,
    Problem,
    PublishAnswer,
    PublishRequest,
    RemoveRequest,
    Rollout,
    RolloutRequest,
    TelemetryAnswer,
)
from fleet.folder import FleetFolder
from lepton_edge.bundle import Bundle
from lepton_edge.errors import ConnectionFailedError, ManagerError, MessageError
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.signatures import Context, sign

R = TypeVar("R")

TIMEOUT_S = 60.0
POLL_S = 10.0
_MAX_ANSWER = 256 * 1024 * 1024
_PART = 256 * 1024


class Client:
    """A connection to the manager of a fleet folder; a context manager."""

    def __init__(self, folder: FleetFolder) -> None:
        """Raises ConnectionFailedError: no manager runs."""
        self._folder = folder
        self._start_hint = f"start it: lepton-edge fleet serve --fleet {folder.root}"
        self._url, self._http = self._connection()

    def _connection(self) -> tuple[str, httpx.Client]:
        serving = self._folder.serving()
        if serving is None:
            raise ConnectionFailedError(f"no manager serves {self._folder.root}; {self._start_hint}")
        client = httpx.Client(
            base_url=serving.http,
            headers={"Authorization": f"Bearer {self._folder.token()}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # a proxy has no business between an operator and loopback
        )
        return serving.http, client

    def reconnect(self) -> None:
        """Look again where the manager is: it may have been restarted. Raises as the constructor."""
        self._http.close()
        self._url, self._http = self._connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _call(
        self,
        method: str,
        path: str,
        answer: type[R],
        *,
        body: Record | None = None,
        query: dict[str, str] | None = None,
    ) -> R:
        response = self._send(method, path, content=encode(body) if body is not None else None, query=query)
        return decode(response.content, answer, what=f"answer of {self._url}{path}", limit=_MAX_ANSWER)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, content=content, params=query, headers=headers)
        except httpx.TransportError as cause:
            raise ConnectionFailedError(f"the manager at {self._url} does not answer; {self._start_hint}") from cause
        if response.is_success:
            return response
        raise ManagerError(_message_of(response), status=response.status_code)

    def fleet(self) -> FleetAnswer:
        return self._call("GET", "/v1/fleet", FleetAnswer)

    def publish(self, bundle: Bundle, key: Ed25519PrivateKey) -> PublishAnswer:
        """Sign here, upload what the manager lacks, and have it published.

        Args:
            key: the operator's; it does not leave this process.

        Raises:
            HashMismatchError: a file of the bundle is not what its manifest says; nothing was uploaded of it.
            ManagerError: refused.
        """
        request = PublishRequest(
            manifest=base64.b64encode(bundle.manifest_bytes).decode("ascii"),
            signature=sign(key, Context.MANIFEST, bundle.manifest_bytes),
        )
        bundle.verify()
        answer = self._call("POST", "/v1/bundles", PublishAnswer, body=request)
        if answer.published:
            return answer
        paths = {ref.sha256: path for path, ref in bundle.manifest.files.items()}
        for digest in answer.missing:
            self._upload(digest, bundle.read(paths[digest]))
        return self._call("POST", "/v1/bundles", PublishAnswer, body=request)

    def _upload(self, digest: str, data: bytes) -> None:
        parts = (data[at : at + _PART] for at in range(0, len(data), _PART))
        # A length makes httpx send the parts as they are, not in HTTP chunks.
        self._send("PUT", f"/v1/blobs/{digest}", content=parts, headers={"Content-Length": str(len(data))})

    def push(self, request: RolloutRequest) -> Rollout:
        return self._call("POST", "/v1/rollouts", Rollout, body=request)

    def is_published(self, bundle: Bundle) -> bool:
        """Whether the manager has this very bundle."""
        return bundle.digest in self._call("GET", "/v1/bundles", Bundles).digests

    def follow(self, rollout: Rollout, wait_s: float = POLL_S) -> Rollout:
        """The rollout as it is when something has changed, or after `wait_s` seconds."""
        query = {"after": str(rollout.revision), "wait_s": f"{wait_s:.3f}"}
        return self._call("GET", f"/v1/rollouts/{rollout.rollout}", Rollout, query=query)

    def devices(self, *, after: int = 0, wait_s: float = 0.0) -> Devices:
        """Args: after: wait for a change since this revision, for `wait_s` seconds at most."""
        query = {"after": str(after), "wait_s": f"{wait_s:.3f}"}
        return self._call("GET", "/v1/devices", Devices, query=query)

    def enrol(self, device: str, labels: dict[str, str]) -> Enrolment:
        """Args: device: a checked id."""
        path = f"/v1/devices/{device}/enrolments"
        return self._call("POST", path, Enrolment, body=EnrolRequest(labels=labels))

    def adopt(self, device: str) -> list[str]:
        return self._call("POST", "/v1/adoptions", DeviceIds, body=AdoptRequest(device=device)).devices

    def remove(self, model: str, to: str) -> list[str]:
        return self._call("POST", "/v1/removals", DeviceIds, body=RemoveRequest(model=model, to=to)).devices

    def telemetry(self, model: str, by: str) -> TelemetryAnswer:
        return self._call("GET", "/v1/telemetry", TelemetryAnswer, query={"model": model, "by": by})


def _message_of(response: httpx.Response) -> str:
    try:
        return decode(response.content, Problem, what="problem", limit=_MAX_ANSWER).message
    except MessageError:
        return f"the manager answered {response.status_code} {response.reason_phrase}"
