"""Conversions from texts, from a function, and towards numbers: what the bundle carries is what the host measured."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.api import load_model, quantize_model
from converters.convert import convert
from converters.data import open_data
from converters.importers import import_model
from converters.request import Request
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.archive import ArchiveReader
from lepton_edge.errors import BundleError, DataError, UsageError
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.postprocess import postprocess
from lepton_edge.preprocess.recipe import load_preprocess
from lepton_edge.preprocess.spec import files_of

pytest.importorskip("tokenizers")

WORDS = 40
RECIPE = '[[step]]\nop = "text.tokenize"\nfile = "tokenizer.json"\nmax_length = 24\n[[postprocess]]\nop = "softmax"\n'


def bag_of_words(classes: int = 3) -> onnx.ModelProto:
    """Embedding, mean over the tokens of a mask, two layers; any number of tokens."""
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.standard_normal((WORDS, 16)).astype(np.float32),
        "w": rng.standard_normal((16, 64)).astype(np.float32),
        "v": rng.standard_normal((64, classes)).astype(np.float32),
        "last": np.array([2]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], "gather"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"], "unsqueeze"),
        helper.make_node("Mul", ["words", "column"], ["seen"], "mul"),
        helper.make_node("ReduceMean", ["seen"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "v"], ["scores"], "head"),
    ]
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        nodes,
        "bag",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder with the model, its tokenizer, its recipe, and 90 texts with the model's own answers as labels."""
    onnx.save(bag_of_words(), tmp_path / "net.onnx")
    model = {"type": "WordLevel", "unk_token": "w0", "vocab": {f"w{i}": i for i in range(WORDS)}}
    document = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "p.toml").write_text(RECIPE)
    answer = load_model(tmp_path / "net.onnx").predict
    rng = np.random.default_rng(1)
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(90):
            ids = rng.integers(0, WORDS, (1, rng.integers(2, 20)))
            scores = answer({"input_ids": ids, "attention_mask": np.ones_like(ids)})
            writer.writerow([" ".join(f"w{i}" for i in ids[0]), int(np.argmax(scores))])
    return tmp_path


def test_a_bundle_of_a_text_model_runs_where_only_the_bundle_is(texts: Path) -> None:
    outcome = convert(
        Request(
            model=texts / "net.onnx",
            out=texts / "o.lep",
            data=texts / "d.csv",
            preprocess=texts / "p.toml",
            keep_all=True,
            benchmark=False,
            budget=5.0,
        )
    )
    assert outcome.source.metric is not None
    assert outcome.source.metric.value == 1.0
    bundle = Bundle.open(texts / "o.lep").verify()
    steps = bundle.manifest.preprocess
    assert files_of(steps) == ["preprocess/tokenizer.json"]
    names = [spec.name for spec in bundle.manifest.signature.inputs]
    device = Pipeline(steps, files={name: bundle.read(name) for name in files_of(steps)}, inputs=names)
    recipe = load_preprocess(texts / "p.toml")
    host = open_data(
        texts / "d.csv", import_model(texts / "net.onnx").signature, steps=recipe.steps, files=recipe.files
    )
    with (texts / "d.csv").open(newline="") as file:
        first = next(csv.DictReader(file))["text"]
    for name, array in device.load(first).items():
        np.testing.assert_array_equal(array[np.newaxis], host.inputs(0)[name])
    chances = postprocess(np.array([[1.0, 2.0, 3.0]]), bundle.manifest.postprocess).scores
    assert float(chances.sum()) == pytest.approx(1.0)


def test_a_bundle_that_lost_its_tokenizer_is_refused(texts: Path) -> None:
    request = Request(
        model=texts / "net.onnx", out=texts / "o.lep", data=texts / "d.csv", preprocess=texts / "p.toml",
        evaluate=False, benchmark=False, keep_all=True,
    )  # fmt: skip
    convert(request)
    reader = ArchiveReader(texts / "o.lep")
    files = {name: reader.read(name) for name in reader.sizes()}
    manifest = Bundle.open(texts / "o.lep").manifest
    lost = {name: data for name, data in files.items() if name in manifest.files and "tokenizer" not in name}
    with pytest.raises(BundleError, match=r"preprocessing needs 'preprocess/tokenizer\.json', which is not listed"):
        Bundle.create(manifest, dict(lost))


def regression() -> onnx.ModelProto:
    weights = {"w": np.random.default_rng(0).standard_normal((8, 1)).astype(np.float32)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "linear")],
        "regression",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


def numbers() -> Mapping[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((120, 8)).astype(np.float32)
    w = np.random.default_rng(0).standard_normal((8, 1)).astype(np.float32)
    return {"x": x, "y": (x @ w)[:, 0] + 0.1}


def pairs() -> list[tuple[np.ndarray, float]]:
    data = numbers()
    return [(x, float(y)) for x, y in zip(data["x"], data["y"], strict=True)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", [numbers(), pairs], ids=["arrays", "a function"])
def test_numbers_are_judged_in_their_own_unit(data: Mapping[str, np.ndarray] | Callable[[], object]) -> None:
    small = quantize_model(regression(), data=data, metric="mae", budget=0.5)
    assert small.metric is not None
    assert (small.metric.name, small.metric.unit) == ("mae", "own")
    assert 0.0 < small.metric.value < 0.6
    with pytest.raises(UsageError, match="--metric mse --budget"):
        quantize_model(regression(), data=data)


def test_labels_of_another_order_are_refused_before_anything_is_promised(conv_onnx: Path) -> None:
    x = np.random.default_rng(2).standard_normal((80, 3, 8, 8)).astype(np.float32)
    y = np.argmax(load_model(conv_onnx).predict(x), axis=1)
    with pytest.raises(DataError, match=r"worse than guessing: top1 0\.0 %"):
        quantize_model(conv_onnx, data=(x, (y + 1) % 4))
