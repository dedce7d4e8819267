"""`inspect`: figures that can be worked out by hand, warnings, bundles, and files that are none."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from converters.graph.lives import peak_bytes
from converters.importers import import_model
from converters.inspect import Facts, describe, inspect
from converters.source import Source
from lepton_edge.bundle import Bundle
from lepton_edge.cli import main
from lepton_edge.cli.inspect import text_of
from lepton_edge.errors import ModelError, RuntimeUnavailableError, UsageError
from tests.converters import models

FLOAT = TensorProto.FLOAT
WIDTH = models.WIDTH
# conv_net: 8 x 8 outputs of 32 channels, each 3 x 3 x 3 and then 3 x 3 x 32; the head: 32 x 4.
FIRST_MACS = 8 * 8 * WIDTH * 27
SECOND_MACS = 8 * 8 * WIDTH * 9 * WIDTH
HEAD_MACS = WIDTH * 4


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *(str(argument) for argument in arguments)])


def facts(model: onnx.ModelProto, shapes: dict[str, list[int]] | None = None) -> Facts:
    return describe(import_model(model, shapes=shapes))


def test_figures_of_a_convolution_net_are_those_worked_out_by_hand() -> None:
    found = facts(models.conv_net())
    assert (found.format, found.opset, found.ir_version, found.min_runtime) == ("onnx", 17, 8, "1.12")
    assert found.macs == FIRST_MACS + SECOND_MACS + HEAD_MACS
    assert {one.operator: one.macs for one in found.operators if one.macs} == {
        "Conv": FIRST_MACS + SECOND_MACS,
        "Gemm": HEAD_MACS,
    }
    # Two convolutions' weights, four of batch norm, the head and its bias.
    assert found.parameters == WIDTH * 27 + WIDTH * WIDTH * 9 + 4 * WIDTH + WIDTH * 4 + 4
    assert found.weight_bytes == 4 * found.parameters
    assert [(one.dtype, one.elements) for one in found.weights] == [("float32", found.parameters)]
    # Two tensors of 32 x 8 x 8 float32 are alive around batch norm and Relu.
    assert found.activation_bytes == 2 * 4 * WIDTH * 8 * 8
    assert found.memory == found.weight_bytes + found.activation_bytes
    assert [layer.name for layer in found.largest_by_macs] == ["wide", "conv", "head"]
    assert found.largest_by_bytes[0].bytes == WIDTH * WIDTH * 9 * 4
    assert found.largest_by_macs[0].output == [1, WIDTH, 8, 8]
    assert found.assumed == {"batch": 1}
    assert found.warnings == []


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], kind: int = FLOAT) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "graph",
        [info("x", kind, ["batch", "length", 4])],
        [info("y", kind, ["batch", "length", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8
    )


def branches() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    bodies = {
        branch: helper.make_graph(
            [helper.make_node(op, ["x"], [branch], op.lower())], branch, [], [info(branch, FLOAT, ["b", "l", 4])]
        )
        for branch, op in (("then_branch", "Relu"), ("else_branch", "Abs"))
    }
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], "max", keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"], "positive"),
        helper.make_node("If", ["c"], ["y"], "choose", **bodies),
    ]
    return graph(nodes, {"zero": np.float32(0)})


def relu(**more: object) -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], ["y"], "relu", **more)


WARNINGS = {
    "open axes": (graph([relu()], {}), "open axes length are counted as 1: give sizes with --shape x=1xlengthx4"),
    "float64": (graph([relu()], {}, TensorProto.DOUBLE), "float64 tensors: 1"),
    "int64": (graph([helper.make_node("Abs", ["x"], ["y"], "abs")], {}, TensorProto.INT64), "is int64"),
    "control flow": (branches(), "control flow (1 If)"),
    "contrib": (
        graph([helper.make_node("QuickGelu", ["x"], ["y"], "gelu", domain="com.microsoft")], {}),
        "operators of com.microsoft run on ONNX Runtime alone",
    ),
}


@pytest.mark.parametrize(("model", "says"), WARNINGS.values(), ids=WARNINGS)
def test_what_a_user_should_know_is_warned_of(model: onnx.ModelProto, says: str) -> None:
    assert any(says in warning for warning in facts(model).warnings)


def test_sizes_given_by_the_user_count() -> None:
    matrix = {"w": np.ones((4, 4), np.float32)}
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], matrix)
    assert facts(model).macs == 16
    sized = facts(model, {"x": [1, 50, 4]})
    assert sized.macs == 50 * 16
    assert sized.activation_bytes == 2 * 50 * 4 * 4
    assert sized.assumed == {"batch": 1}


def test_operators_in_bodies_are_counted() -> None:
    assert {one.operator: one.count for one in facts(branches()).operators} == {
        "ReduceMax": 1,
        "Greater": 1,
        "If": 1,
        "Relu": 1,
        "Abs": 1,
    }


def test_lives_end_with_the_last_reader_even_in_a_body() -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(branches()))
    for value in (*model.graph.inputs, *model.graph.outputs, *(node.outputs[0] for node in model.graph)):
        value.shape = ir.Shape([1, 2, 4]) if value.name in {"x", "y"} else ir.Shape([])
    # x (32 bytes) is read in the bodies, beside y and the condition (1 byte).
    assert peak_bytes(model.graph) == 32 + 32 + 1


def test_json_is_one_document_with_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(models.conv_net(), path)
    done = cli(path, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["name"] == "net"
    assert document["variants"] == []
    assert document["model"]["macs"] == FIRST_MACS + SECOND_MACS + HEAD_MACS
    assert document["model"]["bytes"] == path.stat().st_size


def test_text_has_aligned_columns_and_no_control_characters(tmp_path: Path) -> None:
    model = models.conv_net()
    model.graph.node[0].name = "evil\x1b[2J"
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    done = cli(path)
    assert done.exit_code == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("  operators"))
    column = lines[start].index("count")
    assert {lines[start + offset][column - 1] for offset in range(1, 5)} == {" "}
    assert all(lines[start + offset][column].isdigit() for offset in range(1, 5))
    assert "ONNX Runtime 1.12 and later" in done.stdout


def test_a_bundle_shows_every_variant(converted: tuple[object, Bundle, Path]) -> None:
    _, bundle, path = converted
    found = inspect(path)
    assert found.model is None
    assert {one.variant.name for one in found.variants} == {one.name for one in bundle.manifest.variants}
    by_name = {one.variant.name: one.facts for one in found.variants}
    assert all(one is not None and one.macs > 0 for one in by_name.values())
    done = cli(path)
    assert done.exit_code == 0, done.stderr
    assert all(f"variant {name}" in done.stdout for name in by_name)


def test_a_bundle_is_shown_where_a_formats_library_is_missing(
    converted: tuple[object, Bundle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_litert(path: Path) -> Source:
        if path.suffix == ".tflite":
            raise RuntimeUnavailableError(f"{path}: TFLite files need LiteRT")
        return import_model(path)

    monkeypatch.setattr("converters.inspect.import_model", without_litert)
    found = inspect(converted[2])
    shown = {one.variant.name: (one.facts is not None, one.reason) for one in found.variants}
    assert shown["float32-onnx"] == (True, "")
    assert shown["float32-tflite"] == (False, "float32-tflite.tflite: TFLite files need LiteRT")
    assert "cannot be shown as a graph: float32-tflite.tflite: TFLite files need LiteRT" in text_of(found)


def test_a_function_that_returns_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inspected_net.py").write_text(
        "from tests.converters import models\n\n\ndef make():\n    return models.conv_net()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "inspected_net", raising=False)
    done = cli("inspected_net:make", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["where"] == "inspected_net:make"
    assert document["model"]["macs"] == FIRST_MACS + SECOND_MACS + HEAD_MACS
    assert cli("inspected_net:other").exit_code == 2


BAD = {
    "missing": (None, "missing.onnx", ModelError),
    "no model": (b"hello", "bad.onnx", ModelError),
    "unknown kind": (b"hello", "bad.xyz", ModelError),
}


@pytest.mark.parametrize(("content", "name", "error"), BAD.values(), ids=BAD)
def test_files_that_are_no_models_get_the_importers_errors(
    content: bytes | None, name: str, error: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=name):
        inspect(path)
    done = cli(path)
    assert done.exit_code == 1
    assert done.stderr.startswith("lepton-edge: ")
    assert done.stdout == ""


def test_a_shape_that_does_not_fit_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(models.conv_net(), path)
    with pytest.raises(UsageError):
        inspect(path, shapes={"z": [1]})
    assert cli(path, "--shape", "x").exit_code == 2
