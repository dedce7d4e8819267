"""Bring a scikit-learn pipeline onto devices, as ONNX and as TFLite: python examples/sklearn_pipeline.py OUT_FOLDER

It wants the extra sklearn. A pipeline on disk (.skops, or a pickle with trust=True) is loaded in the same way.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import lepton_edge as le


def main(folder: Path) -> None:
    images, digits = load_digits(return_X_y=True)
    known, x, learnt, labels = train_test_split(images.astype(np.float32), digits, test_size=300, random_state=0)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(known, learnt)

    model = le.load_model(pipeline)  # the scaler is part of the file; every import is run beside the estimator
    model.save(folder / "digits.onnx")
    model.save(folder / "digits.tflite")
    said = pipeline.predict(x)
    for name in ("digits.onnx", "digits.tflite"):
        found = le.load_model(folder / name).predict(x)  # scores first, then the label
        print(f"{name}: {np.count_nonzero(found['label'] == said)} of {len(x)} answers are scikit-learn's")

    print(f"right on {np.count_nonzero(model.predict(x[:100])['label'] == labels[:100])} of 100 digits")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
