"""DATA that fits, and what is said of DATA that does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters.data import open_data
from converters.data.dataset import Dataset
from converters.data.open import read_class_names
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import DataError, LeptonError
from lepton_edge.preprocess import image
from lepton_edge.preprocess.spec import ImageCenterCrop, ImageResize, Layout, Normalize, Step

SIGNATURE = ModelSignature(
    inputs=[TensorSpec(name="image", dtype="float32", shape=["batch", 3, 8, 8])],
    outputs=[TensorSpec(name="scores", dtype="float32", shape=["batch", 3])],
)
STEPS: list[Step] = [ImageResize(size=(8, 8)), Layout(to="NCHW")]
X = np.zeros((5, 3, 8, 8), np.float32)


def nan_in_third() -> np.ndarray:
    x = X.copy()
    x[2, 0, 0, 0] = np.nan
    return x


GOOD = {
    "by the input's name": {"image": X},
    "as x": {"x": X, "y": np.arange(5) % 3},
    "float64": {"x": X.astype(np.float64)},
    "whole numbers as float labels": {"x": X, "y": np.arange(5.0)},
    "labels in a column": {"x": X, "y": np.arange(5)[:, np.newaxis]},
}
BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "another shape": ({"x": X[:, :, :4]}, r"shape \[1, 3, 4, 8\], the model takes"),
    "no sample axis": ({"x": X[0]}, "has shape"),
    "text": ({"x": np.full(X.shape, "a")}, "the model takes float32"),
    "complex": ({"x": X.astype(np.complex64)}, "complex64"),
    "an unknown name": ({"picture": X}, r"holds the arrays \['picture'\].*\['image'\]"),
    "an array too many": ({"x": X, "z": X}, "holds the arrays"),
    "fewer labels": ({"x": X, "y": np.arange(4)}, "different numbers of samples"),
    "one-hot labels": ({"x": X, "y": np.eye(5)}, "not one-hot"),
    "one label for all": ({"x": X, "y": np.array(3)}, "one label a sample"),
    "labels that are times": ({"x": X, "y": np.zeros(5, "datetime64[s]")}, "class indices, numbers or texts"),
    "NaN as a label": ({"x": X, "y": np.array([0, 1, np.nan, 1, 0])}, "y holds NaN"),
    "NaN": ({"x": nan_in_third()}, "sample 2 holds NaN or Inf"),
    "no samples": ({"x": X[:0]}, "no samples"),
    "a scalar": ({"x": np.float32(1)}, "no samples|has shape"),
}


@pytest.mark.parametrize("arrays", GOOD.values(), ids=GOOD)
def test_npz_that_fits(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    data = open_data(tmp_path / "d.npz", SIGNATURE)
    assert len(data) == 5
    sample = data.inputs(4)["image"]
    assert sample.shape == (1, 3, 8, 8)
    assert sample.dtype == np.float32
    assert (data.labels is not None) == ("y" in arrays)


@pytest.mark.parametrize(("arrays", "says"), BAD.values(), ids=BAD)
def test_npz_that_does_not_fit(arrays: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=says) as error:
        open_data(tmp_path / "d.npz", SIGNATURE)
    assert "\n" not in str(error.value)
    assert "d.npz" in str(error.value)


def write_truncated(path: Path) -> None:
    np.savez(path, x=X)
    path.write_bytes(path.read_bytes()[:200])


def write_pickle(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)


FILES: dict[str, tuple[str, Callable[[Path], object], type[LeptonError], str]] = {
    "truncated": ("d.npz", write_truncated, DataError, "truncated"),
    "no npz": ("d.npz", lambda path: path.write_text("hello"), DataError, "no .npz file"),
    "pickled objects": ("d.npz", write_pickle, DataError, "no .npz file of plain arrays"),
    "absent": ("d.npz", lambda path: None, DataError, "No such file"),
    "an absent folder": ("d", lambda path: None, DataError, "no such file or folder"),
    "csv without preprocessing": ("d.csv", lambda path: path.write_text("text,label"), DataError, "--preprocess"),
    "unknown": ("d.bin", lambda path: path.write_text("?"), DataError, "unknown kind of data"),
}


@pytest.mark.parametrize(("name", "write", "kind", "says"), FILES.values(), ids=FILES)
def test_file_that_is_no_data(
    name: str, write: Callable[[Path], object], kind: type[LeptonError], says: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(kind, match=says):
        open_data(tmp_path / name, SIGNATURE)


def picture(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 12), (grey, grey, grey)).save(path)


def opened(path: Path, *names: str) -> Dataset:
    return open_data(path, SIGNATURE, steps=STEPS, class_names=names)


def test_folder_with_the_class_index_in_each_name(tmp_path: Path) -> None:
    for name in ("0002_c.png", "0000_a.jpg", "1.png"):
        picture(tmp_path / name)
    data = opened(tmp_path)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 2, 1]
    assert data.inputs(1)["image"].shape == (1, 3, 8, 8)
    assert data.describe(1) == "0002_c.png"


@pytest.mark.parametrize(
    ("folders", "names", "labels"),
    [
        (("cat", "dog", "eel"), (), [0, 1, 2]),
        (("0", "2"), (), [0, 2]),
        (("dog", "ant"), ("ant", "bee", "dog"), [0, 2]),
    ],
    ids=["all classes in order", "class indices", "named by --labels"],
)
def test_folder_of_label_folders(
    folders: tuple[str, ...], names: tuple[str, ...], labels: list[int], tmp_path: Path
) -> None:
    for name in folders:
        picture(tmp_path / name / "x.png")
    data = opened(tmp_path, *names)
    assert data.labels is not None
    assert data.labels.tolist() == labels


def test_folder_without_classes_is_unlabelled(tmp_path: Path) -> None:
    picture(tmp_path / "one.png")
    assert opened(tmp_path).labels is None


FOLDERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "fewer folders than classes": (("cat/a.png", "dog/a.png"), (), "2 folders, but the model has 3 classes"),
    "a folder that is no label": (("cow/a.png",), ("ant", "bee", "cat"), "folder 'cow' is none of the 3 labels"),
    "a stray image": (("cat/a.png", "b.png"), (), "b.png lies beside LABEL/ folders"),
    "a name without an index": (("0001_a.png", "b.png"), (), "b.png does not start with its class index"),
    "nothing": ((), (), "no images in it"),
}


@pytest.mark.parametrize(("files", "names", "says"), FOLDERS.values(), ids=FOLDERS)
def test_folder_that_does_not_fit(files: tuple[str, ...], names: tuple[str, ...], says: str, tmp_path: Path) -> None:
    for name in files:
        picture(tmp_path / name)
    with pytest.raises(DataError, match=says):
        opened(tmp_path, *names)


def test_folder_of_sounds_that_are_not_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    with pytest.raises(DataError, match=r"only \.wav is read: convert them"):
        opened(tmp_path)


def test_images_without_preprocessing_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "0_a.png")
    with pytest.raises(DataError, match="--preprocess"):
        open_data(tmp_path, SIGNATURE)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "0_a.png")
    (tmp_path / "1_b.png").write_bytes(b"no picture")
    data = opened(tmp_path)
    with pytest.raises(DataError, match=r"1_b\.png"):
        data.inputs(1)


def test_a_folder_is_decoded_one_image_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        picture(tmp_path / f"{index % 3}_{index}.png")
    decoded: list[str] = []
    load = image.load_image

    def counting(path: Path, *, name: str) -> Image.Image:
        decoded.append(path.name)
        return load(path, name=name)

    monkeypatch.setattr(image, "load_image", counting)
    data = opened(tmp_path)
    assert len(decoded) == 1  # the first, to see whether images fit at all
    data.inputs(4)
    assert len(decoded) == 2


@pytest.mark.parametrize("text", ["", "cat\n\ndog"], ids=["empty", "a blank line"])
def test_labels_file_that_makes_no_sense(text: str, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(DataError, match="one class name a line"):
        read_class_names(tmp_path / "l.txt")


IMAGENET = Path(__file__).parents[2].parent / "shared" / "data" / "imagenet-dev250"


@pytest.mark.skipif(not IMAGENET.is_dir(), reason="../shared/data/imagenet-dev250 is not here")
def test_folder_of_real_images() -> None:
    signature = ModelSignature(
        inputs=[TensorSpec(name="image", dtype="float32", shape=["batch", 3, 224, 224])],
        outputs=[TensorSpec(name="scores", dtype="float32", shape=["batch", 1000])],
    )
    steps: list[Step] = [
        ImageResize(short=256),
        ImageCenterCrop(size=(224, 224)),
        Normalize(mean=[127.0] * 3, std=[128.0] * 3),
        Layout(to="NCHW"),
    ]
    data = open_data(IMAGENET, signature, steps=steps)
    assert len(data) == 250
    assert data.labels is not None
    assert data.labels[0] == 1
    assert -1 <= data.inputs(249)["image"].min() < data.inputs(249)["image"].max() <= 1


def test_what_python_gives_is_checked_as_files_are() -> None:
    for arrays, says in BAD.values():
        with pytest.raises(DataError, match=says):
            open_data(arrays, SIGNATURE)
    assert open_data((X, [0, 1, 2, 0, 1]), SIGNATURE).targets == "classes"
    assert open_data(X, SIGNATURE).targets == "none"
