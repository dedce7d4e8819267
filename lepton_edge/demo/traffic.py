"""Requests to the devices' endpoints while everything else happens, each answer checked.

Inputs are those of golden.npz, which are samples of the user's own data. An answer says which bundle and variant gave
it; it is right when it is what this variant's file gives on the host, within the variant's tolerance.
"""

import http.client
import json
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np

from lepton_edge.bundle import Bundle, Variant
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.golden import distance
from lepton_edge.runtimes import installed, open_session

TIMEOUT_S = 10.0


@dataclass
class Tally:
    """What one device answered."""

    right: int = 0
    wrong: int = 0
    failed: int = 0
    by_version: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Known:
    """The bundles whose answers are acceptable, by digest, and what each of their variants answers on this machine."""

    def __init__(self, bundles: list[Bundle]) -> None:
        self._bundles = {bundle.digest: bundle for bundle in bundles}
        self.inputs = bundles[0].golden().inputs
        self.model = bundles[0].manifest.name
        self._expected = {
            (bundle.digest, variant.name): _on_host(bundle, variant, self.inputs)
            for bundle in bundles
            for variant in bundle.manifest.variants
            if variant.runtime in installed()  # no device of the demo has another one
        }

    def judge(self, index: int, answer: dict[str, object]) -> str:
        """The version that answered. Raises ValueError where the answer is wrong."""
        parameters = answer.get("parameters")
        said = parameters if isinstance(parameters, dict) else {}
        bundle = self._bundles.get(str(said.get("bundle")))
        if bundle is None:
            raise ValueError(f"answered by an unknown bundle {said.get('bundle')}")
        variant = bundle.manifest.variant(str(said.get("variant")))
        everything = self._expected[bundle.digest, variant.name]
        # The tolerance is an RMS over all golden inputs; one of n may hold the whole error, sqrt(n) times as much.
        got = {name: array.copy() for name, array in everything.items()}
        for name, array in _outputs(answer).items():
            got[name][index : index + 1] = array
        away = distance(everything, got)
        if not away <= variant.tolerance:
            raise ValueError(f"{bundle.label} {variant.name}: off by {away:.3f}, tolerance {variant.tolerance:.3f}")
        return bundle.manifest.version


def _on_host(bundle: Bundle, variant: Variant, inputs: Arrays) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model"
        file.write_bytes(bundle.read(variant.file))
        return open_session(file, bundle.manifest.signature, variant).run_samples(inputs)


def _outputs(answer: dict[str, object]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    outputs = answer["outputs"]
    if not isinstance(outputs, list):
        raise TypeError("outputs is no list")
    kinds = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32}
    return {one["name"]: np.array(one["data"], kinds[one["datatype"]]).reshape(one["shape"]) for one in outputs}


class Traffic:
    """One thread a device, a few requests a second, until the block ends."""

    def __init__(self, endpoints: dict[str, str], known: Known, *, per_second: float) -> None:
        self.tallies = {device: Tally() for device in endpoints}
        self._known = known
        self._pause_s = 1 / per_second
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_forever, args=(device, url), name=f"traffic-{device}", daemon=True)
            for device, url in endpoints.items()
        ]
        self._bodies = [self._body(index) for index in range(len(next(iter(known.inputs.values()))))]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    @property
    def right(self) -> int:
        return sum(tally.right for tally in self.tallies.values())

    @property
    def bad(self) -> int:
        return sum(tally.wrong + tally.failed for tally in self.tallies.values())

    def _body(self, index: int) -> bytes:
        inputs = [
            {
                "name": name,
                "shape": [1, *array.shape[1:]],
                "datatype": "FP32",
                "data": array[index].reshape(-1).tolist(),
            }
            for name, array in self._known.inputs.items()
        ]
        return json.dumps({"inputs": inputs}).encode()

    def _ask_forever(self, device: str, url: str) -> None:
        tally, turn = self.tallies[device], 0
        while not self._stop.is_set():
            started = time.monotonic()
            self._ask_once(tally, url, turn % len(self._bodies))
            turn += 1
            self._stop.wait(max(0.0, self._pause_s - (time.monotonic() - started)))

    def _ask_once(self, tally: Tally, url: str, index: int) -> None:
        try:
            status, answer = _post(url, f"/v2/models/{self._known.model}/infer", self._bodies[index])
            if status == http.HTTPStatus.OK:
                tally.by_version[self._known.judge(index, answer)] += 1
                tally.right += 1
            elif tally.right:  # before the first version is there, there is nobody to answer
                tally.failed += 1
                tally.problems.append(f"HTTP {status}: {answer}")
        except (ValueError, TypeError, KeyError) as error:
            tally.wrong += 1
            tally.problems.append(str(error))
        except (OSError, http.client.HTTPException) as error:
            tally.failed += 1
            tally.problems.append(f"{type(error).__name__}: {error}")


def _post(url: str, path: str, body: bytes) -> tuple[int, dict[str, object]]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
