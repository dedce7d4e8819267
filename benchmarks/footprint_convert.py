"""What `pip install lepton-edge[convert]` puts on a disk: a clean environment, no torch, at most 400 MB.

Ends with status 1 where it is more, or where a package came along that must not.
"""

import tempfile
from pathlib import Path

from clean import Clean, size

LIMIT_MB = 400
FORBIDDEN = ("torch", "tensorflow", "keras")
LARGEST = 8


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        clean = Clean.made(Path(name))
        (site,) = clean.venv.glob("lib/python*/site-packages")
        bare = size(site)
        clean.install("convert")
        parts = sorted(((size(path), path.name) for path in site.iterdir()), reverse=True)
        total = size(site) - bare
    print(f"lepton-edge[convert] installed: {total / 1e6:.0f} MB ({_verdict(total)}: <= {LIMIT_MB} MB)\n")
    print("| package | MB |\n|---|---|")
    for taken, part in parts[:LARGEST]:
        print(f"| {part} | {taken / 1e6:.1f} |")
    came = [part for _, part in parts if part in FORBIDDEN]
    print(f"\nof {', '.join(FORBIDDEN)}: {', '.join(came) or 'none'}")
    if came or total > LIMIT_MB * 1e6:
        raise SystemExit(1)


def _verdict(total: int) -> str:
    return "met" if total <= LIMIT_MB * 1e6 else "MISSED"


if __name__ == "__main__":
    main()
