"""From the imported model to the files of every profile: one calibration serves all."""

from pathlib import Path
from typing import NamedTuple

import onnx

from converters.artifact import Artifact, onnx_artifact, source_artifact
from converters.data.dataset import Dataset
from converters.graph.macs import int8_share
from converters.graph.operators import is_half, is_quantised
from converters.proto import write_model
from converters.quantize.dynamic import quantize_dynamic
from converters.quantize.prepare import prepare
from converters.quantize.profiles import DYNAMIC, X86_AVX2, X86_VNNI, host_flags, saturates
from converters.quantize.static import quantize_static
from converters.quantize.unsigned import with_unsigned_weights
from converters.source import Source

PREPARED = "prepared.onnx"
_INT8_WEIGHTS = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


class Made(NamedTuple):
    """What quantisation gave.

    Attributes:
        artifacts: the float one first; alone where there is nothing to quantise.
        prepared: the file of the float graph that was quantised; None where there is nothing to quantise.
        reason: why float is alone, "" otherwise.
        warnings: about forms that were left out.
    """

    artifacts: list[Artifact]
    prepared: Path | None
    reason: str
    warnings: list[str]


def make_artifacts(source: Source, calibration: Dataset | None, folder: Path) -> Made:
    """Quantise for every profile.

    Args:
        source: the imported model.
        calibration: samples for static int8; None makes weights-only int8.
        folder: the workspace; every file is written there.

    Raises:
        ModelError, NotYetSupportedError, DataError: as `prepare`, `quantize_static` and `quantize_dynamic`.
    """
    plain = source_artifact(source, folder)
    if is_quantised(source.model):
        return Made([plain], None, "the source alone is kept: it is quantised already", [])
    if is_half(source.model):
        return Made(
            [plain],
            None,
            "float alone is kept: int8 from float16 comes later (not yet); export the model in float32",
            [],
        )
    prepared = prepare(source)
    if calibration is None:
        made = [_dynamic(prepared, source.where, folder)]
        warnings: list[str] = []
    else:
        made, warnings = _static(prepared, calibration, source.where, folder)
    if not any(_has_int8(artifact.path) for artifact in made):
        reason = "float alone is kept: nothing to quantise, as no layer has weights to make int8"
        return Made([plain], None, reason, warnings)
    if calibration is None and made[0].size >= plain.size:
        return Made([plain], None, "float alone is kept: int8 weights would not make the file smaller", warnings)
    write_model(prepared, folder / PREPARED)
    return Made([plain, *made], folder / PREPARED, "", warnings)


def _static(
    prepared: onnx.ModelProto, calibration: Dataset, where: str, folder: Path
) -> tuple[list[Artifact], list[str]]:
    signed = quantize_static(prepared, calibration, where=where)
    share = int8_share(signed)
    flags, machine = host_flags()
    made, warnings = [], []
    for profile in (X86_VNNI, X86_AVX2):
        if saturates(profile, flags=flags, machine=machine):
            warnings.append(
                f"{profile.variant} left out: this CPU has no VNNI and computes it wrongly, so it cannot be judged here"
            )
            continue
        model = with_unsigned_weights(signed) if profile.weights == "U8" else signed
        made.append(onnx_artifact(model, profile, "int8", folder, int8_macs=share))
    return made, warnings


def _dynamic(prepared: onnx.ModelProto, where: str, folder: Path) -> Artifact:
    model = quantize_dynamic(prepared, where=where)
    return onnx_artifact(model, DYNAMIC, "int8-dynamic", folder, int8_macs=int8_share(model))


def _has_int8(file: Path) -> bool:
    model = onnx.load(file)
    return any(tensor.data_type in _INT8_WEIGHTS and len(tensor.dims) > 1 for tensor in model.graph.initializer)
