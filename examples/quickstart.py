"""Make a trained model small, see what it costs, save and run it: python examples/quickstart.py OUT_FOLDER

It leaves model.onnx and samples.npz behind, with which README's commands run.
"""

import shutil
import sys
from importlib import resources
from pathlib import Path

import numpy as np

import lepton_edge as le
from lepton_edge.demo import digits


def main(folder: Path) -> None:
    images, labels = digits.held_out()
    np.savez(folder / "samples.npz", x=images, y=labels)
    with resources.as_file(resources.files("lepton_edge.demo") / "digits.onnx") as path:
        shutil.copyfile(path, folder / "model.onnx")

    model = le.load_model(folder / "model.onnx")
    small = le.quantize_model(model, precision=8, data=folder / "samples.npz", metric="top1", budget=1.0)
    print(f"accuracy {small.metric.value:.2%} on {small.metric.n} samples, {small.drop.value:+.2f} points lost")

    small.save(folder / "small.onnx")
    small.save(folder / "model.lep")
    chosen = np.argmax(small.predict(images[:100]), axis=1)
    print(f"right on {np.count_nonzero(chosen == labels[:100])} of 100 digits")

    agent = le.Agent(folder / "model.lep")  # what a device does, in this process
    print(f"the agent says {np.argmax(agent.predict(images[:1]))}, it is a {labels[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
