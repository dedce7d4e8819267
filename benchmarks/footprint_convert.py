"""What `pip install lepton-edge[convert]` puts on a disk: a clean environment, no torch, at most 400 MB.

Ends with status 1 where it is more, or where a package came along that must not.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from agent_footprint import PARTS, ROOT

LIMIT_MB = 400
FORBIDDEN = ("torch", "tensorflow", "keras")
LARGEST = 8


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        site, bare = _environment(Path(name))
        parts = sorted(((_size(path), path.name) for path in site.iterdir()), reverse=True)
        total = _size(site) - bare
    print(f"lepton-edge[convert] installed: {total / 1e6:.0f} MB ({_verdict(total)}: <= {LIMIT_MB} MB)\n")
    print("| package | MB |\n|---|---|")
    for size, part in parts[:LARGEST]:
        print(f"| {part} | {size / 1e6:.1f} |")
    came = [part for _, part in parts if part in FORBIDDEN]
    print(f"\nof {', '.join(FORBIDDEN)}: {', '.join(came) or 'none'}")
    if came or total > LIMIT_MB * 1e6:
        raise SystemExit(1)


def _verdict(total: int) -> str:
    return "met" if total <= LIMIT_MB * 1e6 else "MISSED"


def _environment(folder: Path) -> tuple[Path, int]:
    """A clean environment with the extra `convert`; returns its packages' folder and the bytes it had before."""
    import shutil

    source, venv = folder / "source", folder / "venv"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    bare = _size(site)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, f"{source}[convert]"], check=True)
    return site, bare


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.lstat().st_size for one in files if one.is_file() and not one.is_symlink())


if __name__ == "__main__":
    main()
