"""Run ONNX files on inputs that lie beside them: `python run_files.py FOLDER`, for each FOLDER/NAME.onnx with NAME.npz.

Writes NAME.out.npz with the outputs by name. One process for all files, so that it can run under another CPU (qemu),
where starting one takes seconds. Only numpy and ONNX Runtime are imported.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for file in sorted(folder.glob("*.onnx")):
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        with np.load(file.with_suffix(".npz")) as arrays:
            inputs = dict(arrays)
        count = len(next(iter(inputs.values())))
        rows = [session.run(None, {name: x[index : index + 1] for name, x in inputs.items()}) for index in range(count)]
        stacked = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        np.savez(file.with_suffix(".out.npz"), **dict(zip(names, stacked, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
