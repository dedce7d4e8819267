"""What the agent costs a device: a clean environment with the extras `agent` and `ort`, and the demo's digit model.

Each runtime is measured in a process of its own. Prints tables and ends with status 1 where a library that the agent
must not need was installed or imported.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from clean import ROOT, Clean, size

FORBIDDEN = ("onnx", "onnx_ir", "torch", "sqlalchemy")
IMPORTS = 5
STEPS = (("agent", "extra agent"), ("agent,ort", "extras agent and ort"))
"""What is installed one after the other into the same environment."""

MEASURE = """
import json, sys, time
def rss():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
out = {"bare": rss()}
start = time.perf_counter()
import device_agent.agent
out["import_s"], out["imported"] = time.perf_counter() - start, rss()
"""
SERVE = """
import asyncio
from device_agent.local import choose
from device_agent.serve.engine import Engine
from device_agent.serve.http import serve
from lepton_edge.bundle import Bundle
from lepton_edge.runtimes import runtimes
from lepton_edge.wire.goal import Limits

async def main():
    engine, name = Engine(), sys.argv[2]
    async with await serve(engine, host="127.0.0.1", port=0, socket=None):
        out["listening"] = rss()
        runtimes()[name].providers()
        out["library"] = rss()
        bundle = Bundle.open(sys.argv[1])
        model = choose(bundle, limits=Limits(), runtimes=[name])
        engine.install(model)
        inputs = {name: array[:1] for name, array in bundle.golden().inputs.items()}
        for _ in range(200):
            await engine.infer(bundle.manifest.name, inputs)
        out.update(serving=rss(), variant=model.variant.name, p50_ms=model.choice.p50_ms, p99_ms=model.choice.p99_ms)
    await engine.close()

asyncio.run(main())
"""
REPORT = f"""
out["forbidden"] = sorted(set(sys.modules) & set({FORBIDDEN!r}))
print(json.dumps(out))
"""


WHICH = """
import json, sys
from lepton_edge.bundle import Bundle
from lepton_edge.runtimes import installed
wanted = {variant.runtime for variant in Bundle.open(sys.argv[1]).manifest.variants}
print(json.dumps({name: runtime.version() for name, runtime in installed().items() if name in wanted}))
"""
"""The runtimes of the environment that the bundle has something for."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        folder = Path(name)
        bundle = _bundle(folder)
        python, sizes = _environment(folder)
        times = [_run(python, MEASURE + REPORT)["import_s"] for _ in range(IMPORTS)]
        found = {
            f"{runtime} {version}": _run(python, MEASURE + SERVE + REPORT, str(bundle), runtime)
            for runtime, version in sorted(_run(python, WHICH, str(bundle)).items())
        }
        installed = _installed(python)
        model_bytes = bundle.stat().st_size
    print(f"Python {platform.python_version()}, {platform.machine()}; installed: {', '.join(installed)}\n")
    print("| what | measured |\n|---|---|")
    for step, taken in sizes.items():
        print(f"| installed size, {step} | {taken / 1e6:.1f} MB |")
    print(f"| import of the agent, median of {IMPORTS} | {statistics.median(times):.2f} s |")
    print(f"| the demo's bundle, all variants | {model_bytes / 1e6:.2f} MB |")
    _print_runtimes(found)
    forbidden = {module for one in found.values() for module in one["forbidden"]}
    heavy = [*sorted(forbidden), *(package for package in installed if package.partition(" ")[0] in FORBIDDEN)]
    print(f"\nimported or installed of {', '.join(FORBIDDEN)}: {', '.join(heavy) or 'none'}")
    if heavy:
        raise SystemExit(1)


def _print_runtimes(found: dict[str, dict[str, object]]) -> None:
    """One column a runtime."""
    memory = {
        "bare": "RSS, Python alone",
        "imported": "RSS, agent imported",
        "listening": "RSS, endpoint listening",
        "library": "RSS, runtime loaded",
        "serving": "RSS, serving the demo's model after 200 requests",
    }
    print(f"\n| what | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for key, what in memory.items():
        print(f"| {what} | {' | '.join(f'{one[key] / 1e6:.1f} MB' for one in found.values())} |")
    print(f"| the variant | {' | '.join(str(one['variant']) for one in found.values())} |")
    speeds = [f"{one['p50_ms']:.3f} / {one['p99_ms']:.3f} ms" for one in found.values()]
    print(f"| its p50 / p99, 1 thread | {' | '.join(speeds)} |")


def _bundle(folder: Path) -> Path:
    """The demo's bundle, converted in the environment that runs this script."""
    import numpy as np

    from lepton_edge.demo import digits

    samples = digits.held_out()
    np.savez(folder / "data.npz", x=samples.images, y=samples.labels)
    words = [sys.executable, "-m", "lepton_edge", "convert", str(ROOT / "lepton_edge" / "demo" / "digits.onnx")]
    options = ["--data", str(folder / "data.npz"), "--budget", "0.5", "-o", str(folder / "digits.lep"), "--json"]
    subprocess.run([*words, *options], check=True, stdout=subprocess.DEVNULL)
    return folder / "digits.lep"


def _environment(folder: Path) -> tuple[Path, dict[str, int]]:
    """A clean environment with the agent in it; returns its Python, and the bytes that it grew to by each step."""
    clean = Clean.made(folder)
    bare = size(clean.venv)
    sizes = {}
    for extras, step in STEPS:
        clean.install(extras)
        sizes[step] = size(clean.venv) - bare
    return clean.python, sizes


def _installed(python: Path) -> list[str]:
    words = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    packages = json.loads(done.stdout)
    return [f"{package['name']} {package['version']}" for package in packages if package["name"] != "pip"]


def _run(python: Path, program: str, *arguments: str) -> dict[str, object]:
    """Run a program in the clean environment, from a folder that holds nothing of ours."""
    words = [str(python), "-P", "-c", program, *arguments]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, cwd=python.parent)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
