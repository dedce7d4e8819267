"""A clean environment with some of our extras in it, for what they cost a disk."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PARTS = ("lepton_edge", "converters", "device_agent", "fleet", "pyproject.toml", "README.md", "LICENSE")


class Clean(NamedTuple):
    """venv: of the environment. source: a copy of ours, because building would leave its files in the checkout."""

    venv: Path
    source: Path

    @classmethod
    def made(cls, folder: Path) -> "Clean":
        """An environment with nothing in it, in an empty folder."""
        one = cls(folder / "venv", folder / "source")
        one.source.mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, one.source / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, one.source / part)
        subprocess.run([sys.executable, "-m", "venv", str(one.venv)], check=True)
        return one

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    def install(self, extras: str) -> None:
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        subprocess.run([*pip, f"{self.source}[{extras}]"], check=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.lstat().st_size for one in files if one.is_file() and not one.is_symlink())
