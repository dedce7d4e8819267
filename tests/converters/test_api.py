"""The Python face: load, quantise, predict, save."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import lepton_edge as le
from lepton_edge.demo import digits
from lepton_edge.errors import BudgetError, DataError, NotYetSupportedError, UsageError
from tests.converters import models


def test_float_model_predicts_as_onnx_runtime_does(conv_onnx: Path) -> None:
    x = models.samples(7)["x"]
    wanted = onnxruntime.InferenceSession(str(conv_onnx), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    model = le.load_model(conv_onnx)
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict({"x": x}), wanted, rtol=1e-5, atol=1e-6)
    assert model.precision == "float32"


def test_a_fixed_batch_of_one_takes_as_many_samples_as_one_likes() -> None:
    x = models.samples(5)["x"]
    assert le.load_model(models.conv_net(batch=1)).predict(x).shape == (5, 4)


def test_without_data_the_file_shrinks_and_answers_stay(
    digits_onnx: Path, held_out: digits.Digits, tmp_path: Path
) -> None:
    small = le.quantize_model(le.load_model(digits_onnx), precision=8)
    path = small.save(tmp_path / "small.onnx")
    assert path.stat().st_size < 0.3 * digits_onnx.stat().st_size
    assert small.precision == "int8-dynamic"
    assert small.metric is None
    right = np.mean(np.argmax(le.load_model(path).predict(held_out.images), axis=1) == held_out.labels)
    assert right >= 0.98


def test_with_data_accuracy_is_measured_and_saved_files_load(
    digits_onnx: Path, held_out: digits.Digits, tmp_path: Path
) -> None:
    small = le.quantize_model(digits_onnx, data=(held_out.images, held_out.labels), metric="top1", budget=1.0)
    assert small.precision == "int8"
    assert small.metric is not None
    assert small.metric.n == 1400
    assert small.drop is not None
    assert small.drop.value <= 1.0
    small.save(tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    np.testing.assert_array_equal(
        session.run(None, {"image": held_out.images[:4]})[0], small.predict(held_out.images[:4])
    )
    small.save(tmp_path / "small.lep", version="3")
    assert le.Bundle.open(tmp_path / "small.lep").verify().label == "small-3"


def test_a_single_variant_can_be_chosen(digits_onnx: Path, held_out: digits.Digits, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not proven"):
        small = le.quantize_model(digits_onnx, data=held_out.images[:80], budget=5)
    small.save(tmp_path / "u.onnx", variant="int8-onnx-u8u8")
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "u.onnx").graph.initializer if len(tensor.dims) > 1}
    assert onnx.TensorProto.UINT8 in kinds
    assert onnx.TensorProto.INT8 not in kinds
    with pytest.raises(UsageError, match="no variant 'x'"):
        small.save(tmp_path / "u.onnx", variant="x")


def test_float_model_saves_as_onnx_and_bundle(conv_onnx: Path, tmp_path: Path) -> None:
    model = le.load_model(conv_onnx)
    x = models.samples(3)["x"]
    again = le.load_model(model.save(tmp_path / "again.onnx"))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    bundle = le.Bundle.open(model.save(tmp_path / "again.lep")).verify()
    assert {one.name for one in bundle.manifest.variants} >= {"float32-onnx", "float32-tflite"}


def test_a_budget_that_cannot_be_met_raises() -> None:
    data = models.fragile_data()
    with pytest.raises(BudgetError, match="the budget cannot be met"):
        le.quantize_model(models.fragile_net(), data=(data["x"], data["y"]), budget=1.0)


def test_nothing_to_quantise_warns_and_gives_float() -> None:
    with pytest.warns(UserWarning, match="float alone is kept"):
        model = le.quantize_model(models.no_weights_net())
    assert model.precision == "float32"


def test_a_fixed_batch_is_loaded_and_run_and_nothing_that_feeds_samples_takes_it(tmp_path: Path) -> None:
    model = le.load_model(models.conv_net(batch=4))
    x = models.samples(4)["x"]
    np.testing.assert_array_equal(model.predict(x), model.predict(np.concatenate([x, x]))[:4])
    model.save(tmp_path / "m.onnx")
    for refused in (
        lambda: le.quantize_model(model),
        lambda: le.benchmark(model),
        lambda: model.save(tmp_path / "m.lep"),
    ):
        with pytest.raises(NotYetSupportedError, match="first axis must be the batch"):
            refused()


def test_save_refuses_what_it_cannot_write(conv_onnx: Path, tmp_path: Path) -> None:
    model = le.load_model(conv_onnx)
    with pytest.raises(NotYetSupportedError, match=r"not yet.*keras"):
        model.save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="unknown format"):
        model.save(tmp_path / "m.xyz")
    with pytest.raises(NotYetSupportedError, match="precision 4"):
        le.quantize_model(model, precision=4)
    with pytest.raises(UsageError, match="unknown calibration method"):
        le.quantize_model(model, data=models.samples(10), method="best")


def test_predict_says_what_does_not_fit(conv_onnx: Path) -> None:
    model = le.load_model(conv_onnx)
    with pytest.raises(DataError, match="has shape"):
        model.predict(np.zeros((1, 3, 9, 8), np.float32))
    with pytest.raises(DataError, match="the model takes"):
        model.predict({"wrong": np.zeros((1, 3, 8, 8), np.float32)})
