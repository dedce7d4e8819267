"""Write TFLite files without TensorFlow, and run them in LiteRT alone: python examples/tflite_file.py OUT_FOLDER"""

import sys
from importlib import resources
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import lepton_edge as le
from lepton_edge.demo import digits


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """What any user of the file would do: it needs nothing of lepton-edge."""
    interpreter = Interpreter(str(path))
    (taken,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(taken["index"], images.shape)  # the batch is open
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def main(folder: Path) -> None:
    images, labels = digits.held_out()
    with resources.as_file(resources.files("lepton_edge.demo") / "digits.onnx") as path:
        model = le.load_model(path)
    model.save(folder / "float.tflite")  # names, order, shapes and types of the source

    small = le.quantize_model(model, precision=8, data=(images, labels), metric="top1", budget=1.0)
    small.save(folder / "int8.tflite")  # int8 inside; inputs and outputs as the source has them
    small.save(folder / "native.tflite", layout="native")  # channels last, steps at the borders: nothing is moved

    for name in ("float", "int8"):
        file = folder / f"{name}.tflite"
        right = np.count_nonzero(np.argmax(run(file, images[:100]), axis=1) == labels[:100])
        print(f"{name}: {file.stat().st_size} bytes, right on {right} of 100 digits")

    again = le.load_model(folder / "int8.tflite")  # TFLite files are a source like any other
    again.save(folder / "from_tflite.onnx")
    print(f"read again: {again.precision}, as ONNX {(folder / 'from_tflite.onnx').stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
