"""The golden test: right files pass on other threads and CPUs, and a file with one broken block does not."""

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.artifact import onnx_artifact, source_artifact
from converters.convert import convert
from converters.data.npz import from_arrays
from converters.golden import golden_inputs, prove
from converters.importers import import_model
from converters.outcome import Outcome
from converters.quantize.profiles import FLOAT, host_flags, native_static
from converters.request import Request
from converters.tflite.pack import write_file
from converters.tflite.parse import read_bytes
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.golden import GOLDEN_COUNT, distance
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec, Variant
from lepton_edge.runtimes import open_session
from tests.converters import models
from tests.saturating import saturating_net, saturating_samples

BLOCK = 64 * 1024
QEMU = shutil.which("qemu-x86_64")
Converted = tuple[Outcome, Bundle, Path]

needs_vnni = pytest.mark.skipif(
    native_static(flags=host_flags()[0], machine=host_flags()[1]) is None
    or not {"avx512_vnni", "avx_vnni"} & host_flags()[0],
    reason="the host has no VNNI, so no U8S8 variant is made here",
)


def distances(path: Path, threads: int, *wrapper: str) -> dict[str, float]:
    script = Path(__file__).with_name("run_golden.py")
    done = subprocess.run(
        [*wrapper, sys.executable, str(script), str(path), str(threads)], capture_output=True, check=True, timeout=150
    )
    return json.loads(done.stdout)


def inverted(weights: np.ndarray, start: int) -> np.ndarray:
    """The sign of what lies in bytes start..start + 64 KiB inverted."""
    flat = weights.reshape(-1).copy()
    first, last = max(0, start) // flat.itemsize, max(0, start + BLOCK) // flat.itemsize
    part = flat[first:last].astype(np.float64)
    lowest, highest = (0, 255) if flat.dtype == np.uint8 else (-128, 127)
    other = 256 - part if flat.dtype == np.uint8 else -part
    flat[first:last] = other if flat.dtype == np.float32 else np.clip(other, lowest, highest)
    return flat.reshape(weights.shape)


def with_inverted_block(data: bytes, start: int, file: Path) -> None:
    """Write the file with one block of its weights inverted, counted over all weight matrices in turn."""
    weights = weights_of(data, file.suffix)
    starts = np.cumsum([0, *(array.nbytes for array in weights.values())])
    broken = {name: inverted(array, start - at) for (name, array), at in zip(weights.items(), starts, strict=False)}
    if file.suffix == ".onnx":
        model = onnx.ModelProto.FromString(data)
        for tensor in model.graph.initializer:
            if tensor.name in broken:
                tensor.CopyFrom(numpy_helper.from_array(broken[tensor.name], tensor.name))
        file.write_bytes(model.SerializeToString())
        return
    lite = read_bytes(data, where="lite")
    tensors = [dataclasses.replace(one, data=broken.get(one.name, one.data)) for one in lite.main.tensors]
    main = dataclasses.replace(lite.main, tensors=tensors)
    write_file(dataclasses.replace(lite, subgraphs=[main, *lite.subgraphs[1:]]), file)


def weights_of(data: bytes, suffix: str) -> dict[str, np.ndarray]:
    """The weight matrices by name."""
    if suffix == ".onnx":
        tensors = onnx.ModelProto.FromString(data).graph.initializer
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    else:
        lite = read_bytes(data, where="lite").main.tensors
        arrays = {
            one.name: np.asarray(one.data) for one in lite if one.data is not None and one.dtype in {"float32", "int8"}
        }
    return {name: array for name, array in arrays.items() if array.ndim > 1}


def blocks_of(data: bytes, suffix: str) -> range:
    return range(0, sum(array.nbytes for array in weights_of(data, suffix).values()), BLOCK)


def broken_distance(bundle: Bundle, variant: Variant, start: int, folder: Path) -> float:
    file = folder / f"{variant.name}-{start}.{variant.format}"
    with_inverted_block(bundle.read(variant.file), start, file)
    golden = bundle.golden()
    session = open_session(file, bundle.manifest.signature, variant)
    return distance(golden.expected(variant.name), session.run_samples(golden.inputs))


@pytest.mark.parametrize("threads", [1, 2])
def test_right_files_pass_on_any_thread_count(converted: Converted, threads: int) -> None:
    _, bundle, path = converted
    for name, ratio in distances(path, threads).items():
        assert ratio <= bundle.manifest.variant(name).tolerance


def test_every_block_of_inverted_weights_is_refused(converted: Converted, tmp_path: Path) -> None:
    _, bundle, _ = converted
    for variant in (one for one in bundle.manifest.variants if not one.judged_with):
        for start in blocks_of(bundle.read(variant.file), f".{variant.format}"):
            ratio = broken_distance(bundle, variant, start, tmp_path)
            # Twice the tolerance is a clear margin: right files stay at half of it on the runtimes that were measured.
            assert ratio > 2 * variant.tolerance, f"{variant.name}: block at {start}: {ratio}, {variant.tolerance=}"


@needs_vnni
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian: qemu-user) is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates one x86 on another")
def test_a_cpu_without_vnni_passes_what_is_for_it_and_is_shielded_from_what_is_not(tmp_path: Path) -> None:
    """Haswell has AVX2 and no VNNI: U8S8 saturates there, so its outputs are wrong and the test must say so."""
    path = tmp_path / "s.lep"
    data = saturating_samples()
    convert(Request(model=saturating_net(), out=path, data=data, budget=100, keep_all=True, benchmark=False))
    manifest = Bundle.open(path).manifest
    ratios = distances(path, 1, str(QEMU), "-cpu", "Haswell")
    for name in ("float32-onnx", "int8-onnx-u8u8"):
        assert ratios[name] <= manifest.variant(name).tolerance
    assert ratios["int8-onnx-u8s8"] > manifest.variant("int8-onnx-u8s8").tolerance
    assert manifest.variant("int8-onnx-u8s8").isa == [["avx512_vnni", "avx_vnni"]]


class Lengths:
    """Samples of three lengths, the commonest of which is 5."""

    labels = None

    def __len__(self) -> int:
        return 12

    def inputs(self, index: int) -> dict[str, np.ndarray]:
        length = {0: 4, 1: 6}.get(index % 4, 5)
        return {"x": np.full((1, length, 2), index, np.float32)}


def test_samples_of_one_length_are_taken_where_lengths_differ() -> None:
    signature = ModelSignature(
        inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", "time", 2])],
        outputs=[TensorSpec(name="y", dtype="float32", shape=["batch", 1])],
    )
    chosen = golden_inputs(Lengths(), signature, seed=0)["x"]
    assert chosen.shape == (GOLDEN_COUNT, 5, 2)
    assert len(np.unique(chosen)) > 1


def test_golden_npz_holds_inputs_float_outputs_and_each_files_own(converted: Converted) -> None:
    _, bundle, _ = converted
    golden = bundle.golden()
    assert golden.inputs["image"].shape == (GOLDEN_COUNT, 1, 28, 28)
    assert golden.float_outputs["logits"].shape == (GOLDEN_COUNT, 10)
    assert set(golden.host_outputs) == {variant.name for variant in bundle.manifest.variants}
    assert (golden.float_outputs["logits"] == golden.expected("float32-onnx")["logits"]).all()
    # Spread over the classes: 16 inputs of ten digits name at least most of them.
    assert len(set(golden.float_outputs["logits"].argmax(axis=1))) >= 8


def test_inputs_without_data_follow_the_signature_and_the_seed() -> None:
    signature = import_model(models.text_net()).signature
    one, again, other = (golden_inputs(None, signature, seed=seed)["ids"] for seed in (0, 0, 1))
    assert one.shape == (GOLDEN_COUNT, 6)
    assert one.dtype == np.int64
    assert (one == again).all()
    assert (one != other).any()
    floats = golden_inputs(None, import_model(models.conv_net()).signature, seed=0)["x"]
    assert floats.dtype == np.float32


def test_few_samples_are_repeated(tmp_path: Path) -> None:
    source = import_model(models.conv_net())
    data = from_arrays(models.samples(3), source.signature, where="data")
    assert golden_inputs(data, source.signature, seed=0)["x"].shape == (GOLDEN_COUNT, 3, 8, 8)


def test_tolerance_is_twice_the_spread_with_a_floor(tmp_path: Path) -> None:
    source = import_model(models.conv_net())
    inputs = golden_inputs(None, source.signature, seed=0)
    plain = prove(source_artifact(source, tmp_path), source.signature, inputs)
    assert plain.tolerance == max(1e-3, 2 * plain.spread)
    called_int8 = onnx_artifact(source.model, FLOAT, "int8", tmp_path)
    assert prove(called_int8, source.signature, inputs).tolerance == 0.05
