"""What the agent costs a device: a clean environment with the extras `agent` and `ort`, and the demo's digit model.

Prints a table and ends with status 1 where a library that the agent must not need was installed or imported.
"""

import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("lepton_edge", "converters", "device_agent", "fleet", "pyproject.toml", "README.md", "LICENSE")
FORBIDDEN = ("onnx", "onnx_ir", "torch", "sqlalchemy")
IMPORTS = 5

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
import numpy as np
from device_agent.local import choose
from device_agent.serve.engine import Engine
from device_agent.serve.http import serve
from lepton_edge.bundle import Bundle
from lepton_edge.wire.goal import Limits

async def main():
    engine = Engine()
    async with await serve(engine, host="127.0.0.1", port=0, socket=None):
        out["listening"] = rss()
        bundle = Bundle.open(sys.argv[1])
        model = choose(bundle, limits=Limits())
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


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        folder = Path(name)
        bundle = _bundle(folder)
        python, bare = _environment(folder)
        size = _size(folder / "venv") - bare
        times = [_run(python, MEASURE + REPORT)["import_s"] for _ in range(IMPORTS)]
        found = _run(python, MEASURE + SERVE + REPORT, str(bundle))
        installed = _installed(python)
        model_bytes = bundle.stat().st_size
    print(f"Python {platform.python_version()}, {platform.machine()}; installed: {', '.join(installed)}\n")
    rows = [
        ("installed size, all of it", f"{size / 1e6:.1f} MB"),
        (f"import of the agent, median of {IMPORTS}", f"{statistics.median(times):.2f} s"),
        ("RSS, Python alone", f"{found['bare'] / 1e6:.1f} MB"),
        ("RSS, agent imported", f"{found['imported'] / 1e6:.1f} MB"),
        ("RSS, endpoint listening", f"{found['listening'] / 1e6:.1f} MB"),
        (f"RSS, serving the demo's {found['variant']} after 200 requests", f"{found['serving'] / 1e6:.1f} MB"),
        ("that variant's p50 / p99, 1 thread", f"{found['p50_ms']:.3f} / {found['p99_ms']:.3f} ms"),
        ("the demo's bundle, all variants", f"{model_bytes / 1e6:.2f} MB"),
    ]
    print("| what | measured |\n|---|---|")
    for row in rows:
        print("| {} | {} |".format(*row))
    heavy = [*found["forbidden"], *(package for package in installed if package.partition(" ")[0] in FORBIDDEN)]
    print(f"\nimported or installed of {', '.join(FORBIDDEN)}: {', '.join(heavy) or 'none'}")
    if heavy:
        raise SystemExit(1)


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


def _environment(folder: Path) -> tuple[Path, int]:
    """A clean environment with the agent in it; returns its Python, and the bytes that it had before."""
    source, venv = folder / "source", folder / "venv"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    bare = _size(venv)
    python = venv / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, f"{source}[agent,ort]"], check=True)
    return python, bare


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


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
