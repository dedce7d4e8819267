"""PyTorch modules and .pt2 files: what comes out of the graph is what comes out of the module."""

import json
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from converters.importers import import_model
from converters.importers.check import check_import
from converters.importers.pt2 import check_archive
from converters.source import Source
from lepton_edge.errors import LeptonError, ModelError, UnsupportedOperatorError, UsageError

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
nn = torch.nn


class Net(nn.Module):
    """Convolution, batch norm, LSTM: (batch, 3, 8, 8) -> (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 4)

    def forward(self, image: object) -> object:
        steps = torch.relu(self.norm(self.conv(image))).flatten(2).transpose(1, 2)
        return self.head(self.drop(self.lstm(steps)[0][:, -1]))


class Small(nn.Module):
    """Two inputs, a mapping of outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: object, weight: object) -> object:
        mean = (self.table(ids) * weight[..., None]).mean(1)
        return {"logits": self.head(mean), "best": self.head(mean).argmax(-1)}


class Encoder(nn.Module):
    """Tokens and positions, attention, LSTM: (batch, length) -> (batch, length, 6), (batch, 3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.places = nn.Embedding(50, 16), nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.lstm = nn.LSTM(16, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: object) -> object:
        steps = self.lstm(self.layer(self.table(ids) + self.places(torch.arange(ids.shape[1]))))[0]
        return steps, self.head(steps.mean(1))


class TakesOne(nn.Module):
    """Runs with a batch of one alone."""

    def forward(self, x: object) -> object:
        return x.reshape(1, 12) * 2


class BranchesOnValues(nn.Module):
    def forward(self, x: object) -> object:
        return x if x.sum() > 0 else -x


class NoOnnxForm(nn.Module):
    def forward(self, x: object) -> object:
        return torch.special.i0e(x)


class Talks(nn.Module):
    def forward(self, x: object) -> object:
        print("hello from forward")
        return x + 1


def ran(source: Source, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(source.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, Source]:
    module = Net()
    module.train()
    module.drop.eval()
    return module, import_model(module, inputs=(torch.randn(1, 3, 8, 8),))


def test_a_module_gives_what_it_gave(net: tuple[nn.Module, Source]) -> None:
    _, source = net
    assert source.format == "torch"
    assert [(spec.name, spec.shape) for spec in source.signature.inputs] == [("image", ["batch", 3, 8, 8])]
    assert [(spec.name, spec.shape) for spec in source.signature.outputs] == [("output", ["batch", 4])]
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        want = Net().eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ran(source, image=x)[0], want, rtol=1e-4, atol=1e-5)
    assert not source.notes
    assert len(source.sha256) == 64


def test_the_module_is_left_as_it_was(net: tuple[nn.Module, Source]) -> None:
    module, _ = net
    fresh = Net().train()
    fresh.drop.eval()
    assert [child.training for child in module.modules()] == [child.training for child in fresh.modules()]
    assert [set(vars(child)) for child in module.modules()] == [set(vars(child)) for child in fresh.modules()]
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor)
    assert all(isinstance(weight, nn.Parameter) for weight in module.lstm._flat_weights)


def test_nothing_of_this_machine_is_in_the_graph(net: tuple[nn.Module, Source]) -> None:
    assert str(Path(__file__).parent).encode() not in net[1].to_bytes()


def test_a_reference_shows_a_graph_that_is_not_the_module(net: tuple[nn.Module, Source]) -> None:
    module, source = net
    sample = {"image": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    check_import(source, [sample])
    with torch.no_grad():
        module.head.bias[2] += 0.5
    try:
        with pytest.raises(ModelError, match=r"output 'output' differs by .* of its largest value"):
            check_import(source, [sample])
    finally:
        with torch.no_grad():
            module.head.bias[2] -= 0.5


def test_read_only_arrays_are_copied_for_torch(net: tuple[nn.Module, Source]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    x.flags.writeable = False
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else it warns but once in a process
    try:
        check_import(net[1], [{"image": x}])
        assert import_model(nn.Linear(8, 2), inputs=x[0, 0]).signature.inputs[0].shape == ["batch", 8]
    finally:
        torch.set_warn_always(always)


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_outputs_by_name(by_name: bool) -> None:
    ids, weight = torch.randint(0, 50, (2, 6)), torch.rand(2, 6)
    inputs = {"ids": ids, "weight": weight} if by_name else (ids.numpy(), weight)
    source = import_model(Small(), inputs=inputs)
    assert [(spec.name, spec.dtype, spec.shape) for spec in source.signature.inputs] == [
        ("ids", "int64", ["batch", 6]),
        ("weight", "float32", ["batch", 6]),
    ]
    assert [(spec.name, spec.dtype) for spec in source.signature.outputs] == [("logits", "float32"), ("best", "int64")]


def test_axes_that_the_user_leaves_open() -> None:
    module = Encoder().eval()
    source = import_model(module, inputs=(torch.randint(0, 50, (1, 12)),), shapes={"ids": ["?", "?"]})
    assert source.signature.inputs[0].shape == ["batch", "ids_1"]
    steps, last = (spec.shape for spec in source.signature.outputs)
    assert isinstance(steps[1], str)
    assert (steps[2], last) == (6, ["batch", 3])
    ids = np.arange(15).reshape(3, 5)
    with torch.no_grad():
        want = module(torch.from_numpy(ids))
    for got, told in zip(ran(source, ids=ids), want, strict=True):
        np.testing.assert_allclose(got, told.numpy(), rtol=1e-4, atol=1e-5)


def test_a_module_that_fixes_the_batch_is_imported_with_one() -> None:
    source = import_model(TakesOne(), inputs=(torch.randn(1, 3, 4),))
    assert source.signature.inputs[0].shape == [1, 3, 4]
    assert "exported with a batch of 1" in source.notes[0]


REFUSED: dict[str, tuple[Callable[[], object], object, type[LeptonError], str]] = {
    "a branch on values": (BranchesOnValues, (1, 3), ModelError, "the BranchesOnValues: torch cannot export it"),
    "no ONNX form": (NoOnnxForm, (1, 3), UnsupportedOperatorError, "operator 'prims.bessel_i0e'"),
    "the wrong shape": (Net, (1, 4, 8, 8), ModelError, "does not run on its example inputs: RuntimeError"),
    "no inputs": (Net, None, UsageError, r"load_model\(module, inputs=\(x,\)\)"),
    "inputs without a tensor": (Net, "text", UsageError, "example inputs are a tuple of tensors"),
}


@pytest.mark.parametrize(("make", "shape", "kind", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_imported(make: Callable[[], object], shape: object, kind: type[LeptonError], says: str) -> None:
    inputs = (torch.randn(*shape),) if isinstance(shape, tuple) else shape
    with pytest.raises(kind, match=says) as error:
        import_model(make(), inputs=inputs)
    assert "\n" not in str(error.value)


def test_exporting_is_silent_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    import_model(Talks(), inputs=(torch.randn(1, 3),))
    assert capsys.readouterr().out == ""


def test_a_bare_pt_file_says_what_to_do(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"package.module:function.*load_model\(module, inputs=\(x,\)\)"):
        import_model(tmp_path / "net.pt")


MODULE = """
import torch
print("hello from the module")

def make():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2), (torch.ones(1, 3),)

def alone():
    return torch.nn.Linear(3, 2)

def breaks():
    raise ValueError("no weights here")

def nothing():
    return None
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


def test_a_function_that_returns_a_module(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path)
    source = import_model("my_nets:make")
    assert source.where == "my_nets:make"
    assert source.signature.inputs[0].shape == ["batch", 3]
    assert sys.path == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("my_nets:alone", UsageError, "return .module, example inputs."),
        ("my_nets:breaks", ModelError, "raised ValueError: no weights here"),
        ("my_nets:nothing", ModelError, "my_nets:nothing is no model"),
        ("my_nets:absent", UsageError, "has no function 'absent'"),
        ("no_such_package.nets:make", UsageError, "No module named 'no_such_package'"),
    ],
)
def test_a_function_that_does_not(text: str, kind: type[LeptonError], says: str, nets: Path) -> None:
    with pytest.raises(kind, match=says):
        import_model(text)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    code = f"""
        import torch
        from torch.export import Dim
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 3)).eval()
        shapes = ({{0: Dim("batch"), 1: Dim("length", max=512)}},)
        saved = torch.export.export(module, (torch.randint(0, 50, (2, 6)),), dynamic_shapes=shapes)
        torch.export.save(saved, {str(path)!r})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, timeout=120)
    return path


def test_a_saved_program_keeps_its_open_axes(program: Path) -> None:
    source = import_model(program)
    batch, length = source.signature.inputs[0].shape
    assert batch == "batch"
    assert isinstance(length, str)
    got = ran(source, **{source.signature.inputs[0].name: np.arange(33).reshape(3, 11)})
    assert got[0].shape == (3, 11, 3)


def test_operators_of_torch_whose_names_begin_with_an_underscore_are_operators(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    code = f"""
        import torch
        torch.manual_seed(0)
        module = torch.nn.utils.weight_norm(torch.nn.Linear(8, 3)).eval()
        shapes = ({{0: torch.export.Dim("batch")}},)
        saved = torch.export.export(module, (torch.randn(2, 8),), dynamic_shapes=shapes)
        assert "_weight_norm" in str(saved.graph)
        torch.export.save(saved, {str(path)!r})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, timeout=120)
    assert import_model(path).signature.outputs[0].shape == ["batch", 3]


def edited(program: Path, target: Path, edit: Callable[[str, bytes], bytes], extra: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            new.writestr(info.filename, edit(info.filename, old.read(info)))
        for name, data in extra.items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", data)
    return target


def in_model(old: str, put: str) -> Callable[[str, bytes], bytes]:
    def edit(name: str, data: bytes) -> bytes:
        if "/models/" not in name:
            return data
        assert old.encode() in data
        return data.replace(old.encode(), put.encode())

    return edit


def same(name: str, data: bytes) -> bytes:
    return data


def pickled(name: str, data: bytes) -> bytes:
    if not name.endswith("weights_config.json"):
        return data
    config = json.loads(data)
    next(iter(config["config"].values()))["use_pickle"] = True
    return json.dumps(config).encode()


def evil_sample(name: str, data: bytes) -> bytes:
    return b"\x80\x04cposix\nsystem\n(S'true'\ntR." if "sample_inputs" in name else data


EVIL: dict[str, tuple[Callable[[str, bytes], bytes], dict[str, bytes], str]] = {
    "an operator of torch": (in_model("torch.ops.aten.linear.default", "torch.hub.load"), {}, "'torch.hub.load'"),
    "a hidden attribute": (in_model("torch.ops.aten.linear.default", "torch.ops.aten.__class__"), {}, "__class__"),
    "code as a guard": (in_model('"guards_code": []', '"guards_code": ["exec(L)"]'), {}, "guards"),
    "torch in a guard": (in_model('"guards_code": []', '"guards_code": ["torch.hub.load(L)"]'), {}, "guards"),
    "a method in a guard": (in_model('"guards_code": []', '"guards_code": ["math.trunc.mro(L)"]'), {}, "guards"),
    "code as a size": (in_model("Symbol('s", "eval('s"), {}, "no plain expression"),
    "code as a name": (in_model('"forward_arg_names": ["', '"forward_arg_names": ["x=exit(), '), {}, "no plain name"),
    "pickled weights": (pickled, {}, "pickled tensors"),
    "a pickled sample": (evil_sample, {}, "a pickle of more than tensors"),
    "a pickled constant": (same, {"data/constants/opaque_obj_0": b"\x80"}, "a pickled object"),
    "a library": (same, {"data/aotinductor/model/x.so": b"\x7fELF"}, "compiled code"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "extra", "says"), EVIL.values(), ids=EVIL)
def test_a_program_that_could_run_code_needs_trust(
    edit: Callable[[str, bytes], bytes], extra: dict[str, bytes], says: str, program: Path, tmp_path: Path
) -> None:
    path = edited(program, tmp_path / "evil.pt2", edit, extra)
    with pytest.raises(ModelError, match=says) as error:
        import_model(path)
    assert "trust=True" in str(error.value)
    check_archive(path, trust=True)


def test_a_damaged_archive(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt2"
    path.write_bytes(program.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"not a \.pt2 archive"):
        import_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"no program of torch\.export"):
        import_model(path)
