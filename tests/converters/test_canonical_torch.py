"""What torch's exporters write for real blocks, brought into canonical form."""

import io

import onnx
import pytest

from converters.graph.canonical import canonicalise
from tests.converters.canonical_graphs import counts
from tests.converters.equality import largest_difference, random_inputs

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore")


class MobileBlock(nn.Module):
    """Depthwise convolution, squeeze and excitation, hard swish, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.Dropout(), nn.LeakyReLU(0.1))

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(x)
        gate = nn.functional.hardsigmoid(self.up(torch.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return self.head(nn.functional.adaptive_avg_pool2d(x + y * gate, 1))


class Encoder(nn.Module):
    """Patches, attention, layer norm, gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu", norm_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Waves(nn.Module):
    """Convolutions over time, pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(2, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2))
        self.last = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.PReLU())
        self.wide = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        y = self.first(x)
        return nn.functional.pixel_shuffle(self.wide((y + self.last(y)).unsqueeze(1)), 2)


CASES = {
    "mobile": (MobileBlock, (3, 16, 16), {
        "Conv": 4, "HardSwish": 1, "Clip": 1, "GlobalAveragePool": 2, "Relu": 1, "HardSigmoid": 1, "Mul": 1, "Add": 1,
        "Gemm": 1, "LeakyRelu": 1}),
    "encoder": (Encoder, (3, 16, 24), {"Conv": 1, "LayerNormalization": 2, "Gelu": 1, "Softmax": 1, "Gemm": 1}),
    "waves": (Waves, (2, 32), {
        "Conv": 3, "MaxPool": 1, "LeakyRelu": 1, "Add": 1, "Relu": 1, "DepthToSpace": 1}),
}  # fmt: skip
VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def export(module, x, *, dynamo: bool) -> onnx.ModelProto:
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        return torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False).model_proto
    buffer = io.BytesIO()
    torch.onnx.export(
        module, (x,), buffer, dynamo=False, opset_version=14, input_names=["x"], dynamic_axes={"x": {0: "batch"}}
    )
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "script"])
@pytest.mark.parametrize(("kind", "shape", "left"), CASES.values(), ids=CASES)
def test_block_reaches_its_form_with_an_open_batch(kind, shape, left, *, dynamo: bool) -> None:
    torch.manual_seed(0)
    source = export(kind().eval(), torch.randn(2, *shape), dynamo=dynamo)
    made = canonicalise(source, where="torch")
    found = {op: count for op, count in counts(made).items() if op not in VIEWS}
    assert {op: found.get(op, 0) for op in left} == left
    assert not {"Shape", "Identity", "Constant", "BatchNormalization", "Erf", "Pow", "Sqrt", "Dropout"} & set(found)
    for batch in (1, 3):
        assert largest_difference(source, made, random_inputs(source, batch, batch=batch)) <= 1e-5
