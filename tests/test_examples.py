"""The examples run, as a reader would run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))

WANTS = {"tflite_file": ["ai_edge_litert"], "sklearn_pipeline": ["sklearn", "skl2onnx"]}
"""What an example needs beside the extra `demo`."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    for package in WANTS.get(example.stem, ()):
        pytest.importorskip(package, reason=f"the example wants {package}")
    done = subprocess.run([sys.executable, example, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    right = re.search(r"right on (\d+) of 100", done.stdout)
    assert right is not None, done.stdout
    assert int(right[1]) >= 95
