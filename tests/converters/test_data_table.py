"""Texts from .csv, .jsonl and folders of .txt; sounds from folders of .wav."""

import csv
import io
import json
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.data import open_data, table
from converters.data.dataset import Dataset
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import DataError
from lepton_edge.preprocess.spec import AudioFit, AudioLogMel, Cast, Layout, Step, TextTokenize

pytest.importorskip("tokenizers")

SIGNATURE = ModelSignature(
    inputs=[
        TensorSpec(name="input_ids", dtype="int64", shape=["batch", "tokens"]),
        TensorSpec(name="attention_mask", dtype="int64", shape=["batch", "tokens"]),
    ],
    outputs=[TensorSpec(name="scores", dtype="float32", shape=["batch", 3])],
)
STEPS: list[Step] = [TextTokenize(file="t.json")]
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2}},
    }
).encode()


def opened(path: Path, *names: str, steps: list[Step] = STEPS) -> Dataset:
    return open_data(path, SIGNATURE, steps=steps, files={"t.json": TOKENIZER}, class_names=names)


def written(path: Path, records: list[tuple[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("label", "text"), *((label, text) for text, label in records)])
    else:
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in records))
    return path


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
def test_texts_are_tokenized_each_in_its_own_length(name: str, tmp_path: Path) -> None:
    data = opened(written(tmp_path / name, [("ab", 1), ('a, "b"\nab', 0), ("b", 2)]))
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 2]
    assert data.targets == "classes"
    assert data.inputs(0)["input_ids"].tolist() == [[1, 2]]
    assert data.inputs(1)["input_ids"].shape[0] == 1
    assert set(data.inputs(2)) == {"input_ids", "attention_mask"}
    assert data.target(1) == 0
    assert data.describe(2) == ("line 5" if name == "d.csv" else "line 3")


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
def test_labels_may_be_names(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, [("a", "cat"), ("b", "ant"), ("ab", "cat")])
    data = opened(path, "ant", "bee", "cat")
    assert data.labels is not None
    assert data.labels.tolist() == [2, 0, 2]
    with pytest.raises(DataError, match="2 labels, but the model has 3 classes"):
        opened(path)
    with pytest.raises(DataError, match="label 'cat' is none of the 2 labels"):
        opened(path, "ant", "bee")


def test_texts_without_labels_are_unlabelled(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text\na\nb\n")
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n\n{"text": "b", "id": 7}\n')
    for name in ("d.csv", "d.jsonl"):
        data = opened(tmp_path / name)
        assert (len(data), data.labels, data.targets) == (2, None, "none")


BAD: dict[str, tuple[str, str, str]] = {
    "no header": ("d.csv", "a,1\n", "line 1: the header must name the columns text and label"),
    "an empty file": ("d.csv", "", "line 1: the header"),
    "a header alone": ("d.csv", "text,label\n", "no samples"),
    "a field too few": ("d.csv", "text,label\na,1\nb\n", "line 3: 1 fields, the header has 2"),
    "an open quote": ("d.csv", 'text,label\n"a,1\n', "line 2: no CSV"),
    "an empty text": ("d.csv", 'text,label\na,1\n" ",1\n', "line 3: an empty text"),
    "a label missing": ("d.csv", "text,label\na,1\nb,\n", "line 3: some lines have a label"),
    "no json": ("d.jsonl", '{"text": "a", "label": 0}\nhello\n', "line 2: no"),
    "no text": ("d.jsonl", '{"label": 0}\n', "line 1: no .*`text`"),
    "a text that is a number": ("d.jsonl", '{"text": 5}\n', "line 1: no"),
    "half a class": ("d.jsonl", '{"text": "a", "label": 0.5}\n', r"line 1: label 0\.5 is no class"),
    "nothing": ("d.jsonl", "\n\n", "no samples"),
}


@pytest.mark.parametrize(("name", "text", "says"), BAD.values(), ids=BAD)
def test_a_wrong_line_is_named(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        opened(tmp_path / name)
    assert name in str(caught.value)


def test_bytes_that_are_no_text_and_giant_lines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.csv").write_bytes(b"text,label\na,1\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"d\.csv, line 3: not UTF-8"):
        opened(tmp_path / "d.csv")
    monkeypatch.setattr(table, "MAX_RECORD", 50)
    for name, head in (("d.csv", "text,label\n"), ("d.jsonl", '{"text": "a"}\n')):
        (tmp_path / name).write_text(head + "a" * 100)
        with pytest.raises(DataError, match="line 2: more than 50 bytes in one sample"):
            opened(tmp_path / name)
    with pytest.raises(DataError, match=r"d\.jsonl: No such file"):
        table.open_table(
            tmp_path / "no" / "d.jsonl", SIGNATURE, steps=STEPS, files={"t.json": TOKENIZER}, class_names=()
        )


def test_a_table_needs_a_tokenizer(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", [("a", 0)])
    with pytest.raises(DataError, match="--preprocess"):
        opened(path, steps=[])
    with pytest.raises(DataError, match=r"no text\.tokenize step"):
        opened(path, steps=[Cast(to="int32")])


rows = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(str.strip),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.sampled_from(["d.csv", "d.jsonl"]))
def test_every_text_comes_back_by_its_place(tmp_path: Path, records: list[tuple[str, int]], name: str) -> None:
    path = written(tmp_path / name, records)
    found = table._Csv(path) if name == "d.csv" else table._Jsonl(path)
    assert [found.read(index).text for index in range(len(found))] == [text for text, _ in records]
    assert [int(found.read(index).label or -1) for index in reversed(range(len(found)))] == [
        label for _, label in reversed(records)
    ]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.sampled_from(["d.csv", "d.jsonl"]))
def test_any_bytes_are_a_table_or_a_data_error(tmp_path: Path, data: bytes, name: str) -> None:
    for head in (b"", b"text,label\n"):
        (tmp_path / name).write_bytes(head + data)
        with suppress(DataError):
            assert len(opened(tmp_path / name)) >= 1


def test_a_folder_of_texts(tmp_path: Path) -> None:
    for name, text in (("0_x.txt", "a"), ("2_y.txt", "bb")):
        (tmp_path / name).write_text(text)
    data = opened(tmp_path)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 2]
    assert data.inputs(1)["input_ids"].tolist() == [[2, 2]]


def sound(path: Path, samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.random.default_rng(samples).integers(-9, 9, samples).astype("<i2").tobytes())
    path.write_bytes(out.getvalue())


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    signature = ModelSignature(
        inputs=[TensorSpec(name="mel", dtype="float32", shape=["batch", 1, 7, 12])], outputs=SIGNATURE.outputs
    )
    steps: list[Step] = [AudioFit(seconds=0.1), AudioLogMel(n_fft=256, hop=80, n_mels=12), Layout(to="NCHW")]
    for name, samples in (("no/a.wav", 500), ("off/b.wav", 900), ("on/c.wav", 800)):
        sound(tmp_path / name, samples)
    (tmp_path / "on" / "notes.txt").write_text("recorded at home")
    data = open_data(tmp_path, signature, steps=steps)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2]
    assert data.inputs(2)["mel"].shape == (1, 1, 7, 12)
    (tmp_path / "on" / "d.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"d\.wav: no WAV file"):
        open_data(tmp_path, signature, steps=steps).inputs(3)
    with pytest.raises(DataError, match="no images in it"):
        opened_as_images(tmp_path, signature)


def opened_as_images(folder: Path, signature: ModelSignature) -> Dataset:
    from lepton_edge.preprocess.spec import ImageMode

    return open_data(folder, signature, steps=[ImageMode(mode="L")])
