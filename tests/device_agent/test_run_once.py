"""`lepton-edge run`: one inference on a file, with what the bundle carries around the model."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lepton_edge.bundle import Bundle
from lepton_edge.cli import main
from lepton_edge.preprocess.spec import Argmax, ImageResize, Labels, Normalize, Reshape, Softmax, TopK
from tests.device_agent.models import WEIGHTS, linear_bundle, linear_onnx

X = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
WANTED = X @ WEIGHTS
RIGHT = linear_onnx(WEIGHTS)


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *(str(argument) for argument in arguments)])


def saved(folder: Path, bundle: Bundle, **fields: object) -> Path:
    """The bundle with other fields in its manifest."""
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    return Bundle.create(msgspec.structs.replace(bundle.manifest, **fields), files).save(folder / "m.lep")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "one.npy", X[0])
    np.savez(tmp_path / "x.npz", x=X, y=np.zeros(3))
    return tmp_path


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_are_the_models_input_as_they_are(inputs: Path, name: str) -> None:
    done = cli(saved(inputs, linear_bundle()), inputs / name, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["bundle"], told["variant"], told["runtime"]) == ("linear-1", "float-onnx", "onnxruntime")
    np.testing.assert_allclose(told["outputs"][0]["values"], WANTED, rtol=1e-5)


def test_a_sample_without_a_batch_gets_one(inputs: Path) -> None:
    done = cli(saved(inputs, linear_bundle()), inputs / "one.npy", "--json")
    np.testing.assert_allclose(json.loads(done.stdout)["outputs"][0]["values"], WANTED[:1], rtol=1e-5)


def test_labels_name_the_best_classes_of_each_sample(inputs: Path) -> None:
    path = saved(inputs, linear_bundle(), labels=["ant", "bee", "cat"])
    best = WANTED.argmax(1)
    told = json.loads(cli(path, inputs / "x.npy", "--json").stdout)["outputs"][0]
    assert [names[0] for names in told["names"]] == [["ant", "bee", "cat"][index] for index in best]
    assert [indices[0] for indices in told["indices"]] == best.tolist()
    lines = cli(path, inputs / "x.npy").stdout.splitlines()
    assert lines[1].split()[:2] == ["y[0]:", ["ant", "bee", "cat"][best[0]]]


def test_postprocessing_makes_the_answer(inputs: Path) -> None:
    steps = [Softmax(), TopK(k=2), Labels()]
    path = saved(inputs, linear_bundle(), labels=["ant", "bee", "cat"], postprocess=steps)
    told = json.loads(cli(path, inputs / "one.npy", "--json").stdout)["outputs"][0]
    powers = np.exp(WANTED[0] - WANTED[0].max())
    np.testing.assert_allclose(told["values"][0], np.sort(powers / powers.sum())[::-1][:2], rtol=1e-5)
    path = saved(inputs, linear_bundle(), postprocess=[Argmax()])
    assert f"y: class {WANTED[0].argmax()}  " in cli(path, inputs / "one.npy").stdout


def test_a_picture_goes_through_the_bundles_preprocessing(inputs: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (2, 2), np.uint8)
    Image.fromarray(grey).convert("RGB").save(inputs / "x.png")
    steps = [ImageResize(size=[1, 1]), Normalize(mean=[0.0], std=[255.0]), Reshape(shape=[3])]
    path = saved(inputs, linear_bundle(), preprocess=steps)
    done = cli(path, inputs / "x.png")
    assert done.exit_code == 1
    assert "input 'x' has shape [1, 3], the model takes ['n', 4]" in done.stderr


def test_the_next_variant_answers_where_a_runtime_refuses_one(inputs: Path) -> None:
    path = linear_bundle({"int8-a": b"no model", "float-onnx": RIGHT}).save(inputs / "m.lep")
    done = cli(path, inputs / "x.npy", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["variant"] == "float-onnx"
    assert "cannot load it" in told["skipped"]["int8-a"]
    assert done.stderr.startswith("int8-a does not run here: ")
    done = cli(path, inputs / "x.npy", "--variant", "int8-a")
    assert (done.exit_code, done.stderr.startswith("lepton-edge: linear-1: no variant runs here: ")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["x.npy", "--variant", "int9"], 1, "no variant 'int9'; there are ['float-onnx']"),
        (["x.npy", "--runtime", "abacus"], 2, "no runtime is called abacus"),
        (["nosuch.npy"], 1, "nosuch.npy: No such file or directory"),
        (["text.npy"], 1, "no file of plain NumPy arrays, or a truncated one"),
        (["text.npz"], 1, "no file of plain NumPy arrays, or a truncated one"),
        (["objects.npy"], 1, "no file of plain NumPy arrays, or a truncated one"),
        (["long.npy"], 1, "no file of plain NumPy arrays, or a truncated one"),
        (["wide.npy"], 1, "input 'x' has shape [3, 5], the model takes ['n', 4]"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(inputs: Path, arguments: list[str], status: int, says: str) -> None:
    (inputs / "text.npy").write_text("text")
    (inputs / "text.npz").write_text("text")
    np.save(inputs / "objects.npy", np.array([{}]), allow_pickle=True)
    header = (inputs / "x.npy").read_bytes()
    (inputs / "long.npy").write_bytes(header.replace(b"(3, 4)", b"(999999999999, 4)").replace(b" " * 11, b"", 1))
    np.save(inputs / "wide.npy", np.zeros((3, 5), np.float32))
    done = cli(saved(inputs, linear_bundle()), inputs / arguments[0], *arguments[1:])
    assert done.exit_code == status
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_damaged_bytes_are_refused(inputs: Path) -> None:
    path = linear_bundle().save(inputs / "m.lep")
    data = bytearray(path.read_bytes())
    data[data.index(RIGHT[:50]) + 40] ^= 1
    path.write_bytes(data)
    done = cli(path, inputs / "x.npy")
    assert done.exit_code == 1
    assert "float-onnx.onnx is damaged" in done.stderr
