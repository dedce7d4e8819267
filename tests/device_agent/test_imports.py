"""The agent stays light: what importing all of it brings along."""

import subprocess
import sys

FORBIDDEN = {
    "alembic", "converters", "fleet", "httpx", "iotcore", "keras", "mlxtend", "onnx", "onnx_ir", "pandas", "PIL",
    "rich", "scipy", "sqlalchemy", "sympy", "tensorflow", "torch",
}  # fmt: skip
LOADED_WHEN_USED = {"ai_edge_litert", "onnxruntime", "tflite_runtime"}
PROGRAM = """
import importlib, pkgutil, sys
import device_agent, lepton_edge.bundle, lepton_edge.runtimes
names = [module.name for module in pkgutil.walk_packages(device_agent.__path__, "device_agent.")]
for name in names:
    importlib.import_module(name)
print(len(names))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_importing_every_module_of_the_agent_brings_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    count, loaded = done.stdout.splitlines()
    assert int(count) > 10
    assert (FORBIDDEN | LOADED_WHEN_USED) & set(loaded.split()) == set()
