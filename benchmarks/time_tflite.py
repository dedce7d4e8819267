"""Times TFLite files for profile_tflite.py, in a process of its own: a runtime may come from another environment.

Reads a line of JSON for each measurement, {"files": [...], "budget_s": number}, and answers with a line: nanoseconds a
run of each file, the fastest tenth's edge, or {"error": ...}. It knows NumPy and the runtime alone.
"""

import importlib
import json
import sys
import time

import numpy as np

LEAST, MOST = 8, 60
"""Rounds."""


def interpreter(path: str, kernels: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - of either library
    try:
        library = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        library = importlib.import_module("tflite_runtime.interpreter")
    resolvers = library.OpResolverType
    kind = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES if kernels == "builtin" else resolvers.AUTO
    made = library.Interpreter(path, num_threads=1, experimental_op_resolver_type=kind)
    made.allocate_tensors()
    rng = np.random.default_rng(1)
    for one in made.get_input_details():
        lowest, highest = (-128, 128) if one["dtype"] == np.int8 else (0, 8)
        whole = np.issubdtype(one["dtype"], np.integer)
        values = rng.integers(lowest, highest, one["shape"]) if whole else rng.normal(0, 1, one["shape"])
        made.set_tensor(one["index"], values.astype(one["dtype"]))
    return made


def measure(files: list[str], kernels: str, budget: float) -> list[float]:
    """One after the other in each round, so that what else runs on the machine meets all alike."""
    made = [interpreter(path, kernels) for path in files]
    times: list[list[int]] = [[] for _ in made]
    for one in made:
        one.invoke()
    end = time.perf_counter() + budget
    for count in range(MOST):
        if count >= LEAST and time.perf_counter() > end:
            break
        for one, kept in zip(made, times):  # noqa: B905 - Python 3.9 runs this too
            before = time.perf_counter_ns()
            one.invoke()
            kept.append(time.perf_counter_ns() - before)
    return [float(np.quantile(kept, 0.1)) for kept in times]


def main(kernels: str) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer: object = measure(asked["files"], kernels, asked["budget_s"])
        except (RuntimeError, ValueError) as reason:
            answer = {"error": str(reason)[:200]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
