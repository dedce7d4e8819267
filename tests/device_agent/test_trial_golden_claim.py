"""DESIGN.md's claim about the golden test, on the demo's real model: healthy machines pass, a damaged file does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from device_agent.core.choice import candidates
from device_agent.info import device_of, probe
from device_agent.trial import golden_check, self_test
from device_agent.trial.process import COMMAND, examine_apart
from device_agent.trial.protocol import Request, Verdict
from lepton_edge.bundle import Bundle, Variant
from lepton_edge.demo import digits
from lepton_edge.errors import SelfTestError
from lepton_edge.runtimes import open_session
from lepton_edge.wire.chunks import CHUNK_SIZE as CHUNK
from lepton_edge.wire.goal import Limits
from tests.device_agent.models import unpack
from tests.saturating import saturating_net, saturating_samples

MODEL = Path(digits.__file__).parent / "digits.onnx"
QEMU = shutil.which("qemu-x86_64")
VARIANTS = ["int8-onnx-u8s8", "int8-onnx-u8u8", "float32-onnx"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo's bundle, all variants."""
    images, labels = digits.held_out()
    return converted(MODEL, tmp_path_factory.mktemp("digits"), x=images, y=labels)


def converted(model: Path, folder: Path, **data: np.ndarray) -> Bundle:
    """All variants of a model, made by the program: the agent's tests import no converter."""
    np.savez(folder / "data.npz", **data)
    words = [sys.executable, "-m", "lepton_edge", "convert", str(model), "--data", str(folder / "data.npz")]
    options = ["--no-benchmark", "--keep-all", "--budget", "100", "-o", str(folder / "made.lep")]
    subprocess.run([*words, *options], check=True, capture_output=True)
    return Bundle.open(folder / "made.lep")


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(bundle, tmp_path_factory.mktemp("bundle") / "files")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_right_file_passes_on_any_number_of_threads(bundle: Bundle, folder: Path, name: str, threads: int) -> None:
    variant = bundle.manifest.variant(name)
    able = candidates(bundle.manifest, device_of(probe(folder, {})), limits=Limits())
    if variant not in able:
        pytest.skip("not for this CPU")
    limits = Limits(threads=threads)
    trial = self_test(folder, bundle.manifest, variant, bundle.golden(), limits=limits, apart=False)
    assert trial.choice.golden_ratio <= variant.tolerance


def on_haswell(bundle: Bundle, folder: Path, name: str) -> Verdict:
    """No VNNI there: other kernels, which saturate in silence where the file does not avoid it."""
    variant = bundle.manifest.variant(name)
    request = Request(file=str(folder / variant.file), signature=bundle.manifest.signature, variant=variant, threads=1)
    emulated = (str(QEMU), "-cpu", "Haswell", *COMMAND)
    return examine_apart(request, bundle.golden(), timeout_s=150, command=emulated)


@pytest.mark.skipif(QEMU is None, reason="needs qemu-user")
def test_the_right_file_passes_on_an_emulated_haswell(bundle: Bundle, folder: Path) -> None:
    verdict = on_haswell(bundle, folder, "int8-onnx-u8u8")
    assert (verdict.code, verdict.reason) == ("", "")
    assert verdict.golden_ratio <= bundle.manifest.variant("int8-onnx-u8u8").tolerance


@pytest.mark.skipif(QEMU is None, reason="needs qemu-user")
def test_the_file_that_saturates_on_a_haswell_is_refused_there(tmp_path: Path) -> None:
    """`isa` keeps it off such a device; should that be wrong, the golden test still does."""
    onnx.save(saturating_net(), tmp_path / "saturating.onnx")
    bundle = converted(tmp_path / "saturating.onnx", tmp_path, x=saturating_samples())
    if "int8-onnx-u8s8" not in {variant.name for variant in bundle.manifest.variants}:
        pytest.skip("this CPU saturates too, so no such file is made here")
    verdict = on_haswell(bundle, unpack(bundle, tmp_path / "files"), "int8-onnx-u8s8")
    assert verdict.code == "self-test"
    assert "golden test gave" in verdict.reason


def weight_mask(data: bytes) -> np.ndarray:
    """Which bytes of an ONNX file are the highest (or only) byte of a weight."""
    mask = np.zeros(len(data), bool)
    for tensor in onnx.load_from_string(data).graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim > 1 and weights.size > 100:
            at = data.find(tensor.raw_data)
            assert at > 0
            mask[at : at + len(tensor.raw_data)][weights.itemsize - 1 :: weights.itemsize] = True
    return mask


def inverted(data: bytes, block: int, variant: Variant) -> bytes | None:
    """The file with the sign of every weight in one block turned; None where the block holds hardly any."""
    mask = weight_mask(data)
    outside = np.ones(len(data), bool)
    outside[block * CHUNK : (block + 1) * CHUNK] = False
    mask[outside] = False
    if mask.sum() < 4096:
        return None
    found = np.frombuffer(data, np.uint8).copy()
    if variant.precision == "float32":
        found[mask] ^= 0x80
    else:  # two's complement and offset-128 bytes alike: -w is 256 - byte
        found[mask] = (256 - found[mask].astype(int)) % 256
    return found.tobytes()


@pytest.mark.parametrize("name", VARIANTS)
def test_one_block_of_inverted_weights_fails_wherever_it_is(bundle: Bundle, tmp_path: Path, name: str) -> None:
    """With the hashes made right again, as an attacker or a broken converter would: only computing can tell."""
    variant, golden = bundle.manifest.variant(name), bundle.golden()
    data = bundle.read(variant.file)
    tried = 0
    for block in range(-(-len(data) // CHUNK)):
        damaged = inverted(data, block, variant)
        if damaged is None:
            continue
        file = tmp_path / f"{block}.onnx"
        file.write_bytes(damaged)
        session = open_session(file, bundle.manifest.signature, variant)
        with pytest.raises(SelfTestError, match="golden test gave"):
            golden_check(session, variant, golden)
        tried += 1
    assert tried >= 2
