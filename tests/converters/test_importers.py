"""What comes in as a model, and what is said of what is none."""

import hashlib
import importlib.util
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converters.graph.canonical import canonicalise
from converters.graph.signature import parse_shape
from converters.importers import import_model
from lepton_edge.errors import LeptonError, ModelError, UnsupportedOperatorError, UsageError
from tests.converters import models


def save_external(path: Path) -> None:
    net = models.conv_net()
    onnx.save(net, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def write_truncated(path: Path) -> None:
    onnx.save(models.conv_net(), path)
    path.write_bytes(path.read_bytes()[:1000])


def write_without_weights(path: Path) -> None:
    save_external(path)
    path.with_name("weights.bin").unlink()


def write_short_weights(path: Path) -> None:
    save_external(path)
    path.with_name("weights.bin").write_bytes(b"short")


def write_escaping_weights(path: Path) -> None:
    save_external(path)
    net = onnx.load(path, load_external_data=False)
    for tensor in net.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    path.write_bytes(net.SerializeToString())


def write_custom_operator(path: Path) -> None:
    net = models.model(
        [helper.make_node("Frobnicate", ["x"], ["y"], "frob", domain="com.example")],
        {},
        inputs={"x": ["batch", 4]},
        outputs={"y": ["batch", 4]},
    )
    net.opset_import.append(helper.make_opsetid("com.example", 1))
    path.write_bytes(net.SerializeToString())


def write_broken_graph(path: Path) -> None:
    net = models.conv_net()
    net.graph.node[3].input[0] = "nowhere"
    path.write_bytes(net.SerializeToString())


BAD: dict[str, tuple[Callable[[Path], object], type[LeptonError], str]] = {
    "absent": (lambda path: None, ModelError, "No such file"),
    "a folder": (lambda path: path.mkdir(), ModelError, "directory"),
    "empty": (lambda path: path.write_bytes(b""), ModelError, "not an ONNX file"),
    "text": (lambda path: path.write_text("hello, I am no model\n" * 50), ModelError, "not an ONNX file"),
    "random bytes": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), ModelError, "not an ONNX file"
    ),
    "truncated": (write_truncated, ModelError, "not an ONNX file, or a truncated one"),
    "external weights missing": (write_without_weights, ModelError, "lie in another file.*No such file"),
    "external weights too short": (write_short_weights, ModelError, "lie in another file.*too short"),
    "external weights outside": (write_escaping_weights, ModelError, "not in the model's folder"),
    "an unknown operator": (write_custom_operator, UnsupportedOperatorError, "'frob': operator 'Frobnicate'"),
    "an edge from nowhere": (write_broken_graph, ModelError, "not a valid ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "kind", "says"), BAD.values(), ids=BAD)
def test_file_that_cannot_be_imported(
    write: Callable[[Path], object], kind: type[LeptonError], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    write(path)
    with pytest.raises(kind, match=says) as error:
        import_model(path)
    assert "\n" not in str(error.value)
    assert "net.onnx" in str(error.value)


def test_an_unknown_kind_of_model_says_which_there_are(tmp_path: Path) -> None:
    path = tmp_path / "net.tf"
    path.write_bytes(b"\x80\x04never read")
    with pytest.raises(ModelError, match=r"unknown kind of model file '.tf'; there are .onnx, .*.tflite"):
        import_model(path)


WHOLE = models.conv_net().SerializeToString()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(WHOLE) - 1), cut=st.integers(0, 12), put=st.binary(max_size=6))
def test_a_damaged_file_is_our_error_or_still_a_model(position: int, cut: int, put: bytes, tmp_path: Path) -> None:
    # Damage to the ends hits the structure; the middle is weights, where it mostly goes unnoticed.
    path = tmp_path / "net.onnx"
    path.write_bytes(WHOLE[:position] + put + WHOLE[position + cut :])
    with suppress(LeptonError):
        canonicalise(import_model(path).model, where=str(path))


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".pt2", ".pt", ".pth"])
def test_files_that_are_no_models(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"\x80\x04never run")
    with pytest.raises(ModelError, match=r"net\."):
        import_model(path)


def test_objects_that_are_no_models() -> None:
    with pytest.raises(ModelError, match="a dict is no model"):
        import_model({})
    with pytest.raises(ModelError, match=r"unknown kind of model file '\.docx'"):
        import_model("net.docx")


def test_example_inputs_go_with_a_module_only(conv_onnx: Path) -> None:
    for source in (conv_onnx, models.conv_net()):
        with pytest.raises(UsageError, match="example inputs go with a torch module"):
            import_model(source, inputs=(np.ones(2),))


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "net.pt2").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pip install 'lepton-edge\[torch\]'"):
        import_model(tmp_path / "net.pt2")


def test_external_weights_come_inside(tmp_path: Path) -> None:
    save_external(tmp_path / "net.onnx")
    source = import_model(tmp_path / "net.onnx")
    inside = onnx.ModelProto.FromString(source.to_bytes())
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in inside.graph.initializer)
    assert inside.graph.initializer[0].raw_data == models.conv_net().graph.initializer[0].raw_data


def test_the_digest_is_of_the_files(tmp_path: Path) -> None:
    save_external(tmp_path / "net.onnx")
    data = (tmp_path / "net.onnx").read_bytes() + (tmp_path / "weights.bin").read_bytes()
    source = import_model(tmp_path / "net.onnx")
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert source.size_bytes == len(data)
    net = models.conv_net()
    assert import_model(net).sha256 == hashlib.sha256(net.SerializeToString(deterministic=True)).hexdigest()


def test_signature_keeps_names_and_the_symbolic_batch(conv_onnx: Path) -> None:
    signature = import_model(conv_onnx).signature
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs] == [("x", "float32", ["batch", 3, 8, 8])]
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("y", ["batch", 4])]


def test_initialisers_among_the_inputs_are_not_inputs() -> None:
    net = models.conv_net()
    net.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 3, 3, 3]))
    assert [spec.name for spec in import_model(net).signature.inputs] == ["x"]


def test_shape_fixes_open_axes_and_leaves_the_batch() -> None:
    source = import_model(models.conv_net(side="side"), shapes={"x": [1, 3, 8, 8]})
    assert source.signature.inputs[0].shape == ["batch", 3, 8, 8]
    assert source.signature.outputs[0].shape == ["batch", 4]


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"z": [1, 3, 8, 8]}, "no such input"),
        ({"x": [1, 3, 8]}, "3 sizes, but the input has 4 axes"),
        ({"x": [1, 4, 8, 8]}, "axis 1 is 3 in the file, not 4"),
    ],
)
def test_shape_that_does_not_fit(shapes: dict[str, list[int]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        import_model(models.conv_net(side="side"), shapes=shapes)


@pytest.mark.parametrize("text", ["x", "x=", "=1x2", "x=1x", "x=1xa", "x=1x0", "x=1x-2", "x=batchx128", "x=??x1"])
def test_shape_text_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected name="):
        parse_shape(text)


def test_shape_text() -> None:
    assert parse_shape("a=b=1x3x224x224") == ("a=b", [1, 3, 224, 224])
    assert parse_shape("ids=?x128") == ("ids", ["?", 128])


def test_open_axes_stay_open_and_get_a_name() -> None:
    source = import_model(models.conv_net(side="side"))
    assert source.signature.inputs[0].shape == ["batch", 3, "side", "side"]
    net = models.conv_net(side="side")
    net.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    net.graph.input[0].type.tensor_type.shape.dim[3].dim_value = -1
    assert import_model(net).signature.inputs[0].shape == ["batch", 3, "x_2", "x_3"]


def test_a_question_mark_leaves_an_axis_open() -> None:
    source = import_model(models.conv_net(side="side"), shapes={"x": ["?", 3, 16, "?"]})
    assert source.signature.inputs[0].shape == ["batch", 3, 16, "side"]


def test_the_model_given_is_not_changed() -> None:
    net = models.conv_net(side="side")
    before = net.SerializeToString()
    import_model(net, shapes={"x": [1, 3, 8, 8]})
    assert net.SerializeToString() == before
