"""preprocess.toml: what is refused, and where the message says it stands; and the way from outputs to an answer."""

import io
import subprocess
import sys
import wave
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from lepton_edge.preprocess.array import cast, layout, normalize, reshape
from lepton_edge.preprocess.pipeline import TABLE, Pipeline
from lepton_edge.preprocess.postprocess import ctc_text, postprocess, softmax
from lepton_edge.preprocess.recipe import OPS, load_preprocess, preprocess_files
from lepton_edge.preprocess.spec import (
    Argmax,
    Cast,
    Ctc,
    ImageMode,
    Labels,
    Layout,
    Normalize,
    Reshape,
    Softmax,
    Step,
    TextTokenize,
    TopK,
    op_name,
)

WRONG: dict[str, tuple[str, str]] = {
    "a parameter that the step has not": (
        '[[step]]\nop = "image.resize"\nshort = 8\nsharp = 1\n',
        r"step 1 \(image\.resize\): .*unknown field `sharp`.*its parameters are short, size, filter",
    ),
    "an op with a slip": (
        '[[step]]\nop = "audio.logmel"\n',
        r"step 1: unknown op 'audio\.logmel'; did you mean audio.log_mel",
    ),
    "no op": ("[[step]]\nmean = [1]\n", "step 1: op is missing"),
    "an op that is a number": ("[[step]]\nop = 3\n", "unknown op 3"),
    "the second step": (
        '[[step]]\nop = "image.mode"\nmode = "L"\n[[step]]\nop = "audio.frame"\nlength = 8\nhop = 4\n',
        r"step 2 \(audio\.frame\) works on sound, but gets image",
    ),
    "a postprocess step as step": (
        '[[step]]\nop = "softmax"\n',
        r"step 1 \(softmax\) .*belongs under \[\[postprocess\]\]",
    ),
    "a step as postprocess": (
        '[[postprocess]]\nop = "normalize"\nmean = [0]\nstd = [1]\n',
        r"postprocess 1 \(normalize\): it belongs under \[\[step\]\]",
    ),
    "an unknown table": ("[[steps]]\nop = 1\n", "unknown table 'steps'"),
    "one table": ('[step]\nop = "softmax"\n', r"write \[\[step\]\]"),
    "both lengths": (
        '[[step]]\nop = "audio.frame"\nlength = 8\nlength_ms = 1\nhop = 4\n',
        "either length or length_ms",
    ),
    "no hop": ('[[step]]\nop = "audio.frame"\nlength = 8\n', "either hop or hop_ms"),
    "no padding length": (
        '[[step]]\nop = "text.tokenize"\nfile = "t.json"\npadding = "max_length"\n',
        "needs max_length",
    ),
    "an absent file": ('[[step]]\nop = "text.tokenize"\nfile = "t.json"\n', r"it names .*t\.json: No such file"),
    "NaN": ('[[step]]\nop = "normalize"\nmean = [nan]\nstd = [1]\n', "NaN or infinite"),
    "a logarithm of silence": (
        '[[step]]\nop = "audio.log_mel"\nn_fft = 8\nhop = 4\nn_mels = 2\nfloor = 0\n',
        "silence has no logarithm",
    ),
    "filters upside down": (
        '[[step]]\nop = "audio.log_mel"\nn_fft = 8\nhop = 4\nn_mels = 2\nf_min = 9\nf_max = 8\n',
        "f_max 8 is not above f_min 9",
    ),
    "a million transforms": ('[[step]]\nop = "audio.spectrogram"\nn_fft = 100000000\nhop = 1\n', "1048576"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_recipe_says_which_step_and_why(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        load_preprocess(tmp_path / "p.toml")
    assert str(caught.value).startswith(str(tmp_path / "p.toml"))


def test_a_giant_or_foreign_file_is_refused(tmp_path: Path) -> None:
    for data, says in (
        (b"#" * 1_100_000, "more than 1048576 bytes"),
        (b"\xff\xfe", "no valid TOML"),
        (b"x = [", "TOML"),
    ):
        (tmp_path / "p.toml").write_bytes(data)
        with pytest.raises(DataError, match=says):
            load_preprocess(tmp_path / "p.toml")


@given(st.binary(max_size=60), st.sampled_from(sorted(OPS)))
def test_any_bytes_are_a_recipe_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, op: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(f'[[step]]\nop = "{op}"\n'.encode() + data)
    with suppress(DataError):
        load_preprocess(path)


def test_files_of_one_name_get_names_of_their_own() -> None:
    steps: list[Step] = [TextTokenize(file=name) for name in ("a/t.json", "b/t.json", "..json", "a/t.json")]
    found = preprocess_files(steps, Path("recipes"))
    assert {name: str(path) for name, path in found.items()} == {
        "preprocess/t.json": "recipes/a/t.json",
        "preprocess/2-t.json": "recipes/b/t.json",
        "preprocess/json": "recipes/..json",
    }


def test_every_step_is_in_the_table_or_works_on_outputs() -> None:
    after = {"softmax", "argmax", "topk", "labels", "ctc"}
    assert {
        op_name(kind) if isinstance(kind, msgspec.Struct) else str(kind.__struct_config__.tag) for kind in TABLE
    } == (set(OPS) - after)


def test_the_kernel_needs_no_extra_until_a_step_does() -> None:
    program = (
        "import sys; import lepton_edge.preprocess.recipe, lepton_edge.preprocess.postprocess; "
        "print({'PIL', 'samplerate', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_without_a_family_a_sample_is_what_its_name_or_first_bytes_say(tmp_path: Path) -> None:
    pipeline = Pipeline([Cast(to="float32")], inputs=["x"])
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x00\x40" * 5)
    (tmp_path / "a.wav").write_bytes(sound.getvalue())
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), sound.getvalue()):
        np.testing.assert_array_equal(pipeline.load(source)["x"], [0.5] * 5)
    picture = Image.new("L", (4, 3), 7)
    picture.save(tmp_path / "a.png")
    assert pipeline.load(tmp_path / "a.png")["x"].shape == (3, 4, 3)
    grey = Pipeline([ImageMode(mode="L")], inputs=["x"])
    assert grey.load((tmp_path / "a.png").read_bytes())["x"].tolist() == [[[7.0]] * 4] * 3
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match=r"a\.txt: step 1 \(cast\) cannot work on text"):
        pipeline.load(tmp_path / "a.txt")


def test_one_array_cannot_feed_two_inputs() -> None:
    with pytest.raises(DataError, match="the model takes"):
        Pipeline([Cast(to="int8")], inputs=["a", "b"]).run(np.zeros(3))


@given(
    st.sampled_from(["uint8", "int8", "int32", "int64"]),
    st.lists(st.floats(-1e20, 1e20), min_size=1, max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
)
def test_a_cast_to_whole_numbers_never_wraps_round(to: str, floats: list[float], whole: list[int]) -> None:
    limits = np.iinfo(to)
    want = [min(limits.max, max(limits.min, int(value))) for value in floats]
    assert cast(np.array(floats), Cast(to=to)).tolist() == want  # type: ignore[arg-type]
    clipped = [min(limits.max, max(limits.min, value)) for value in whole]
    assert cast(np.array(whole, np.int64), Cast(to=to)).tolist() == clipped  # type: ignore[arg-type]
    assert cast(np.array([True]), Cast(to=to)).tolist() == [1]  # type: ignore[arg-type]


def test_array_steps_that_do_not_fit_say_why() -> None:
    array = np.zeros((4, 3), np.float32)
    refused = [
        (lambda: layout(np.zeros((2, 2, 2, 2)), Layout(to="NHWC")), "cannot become NHWC"),
        (lambda: normalize(array, Normalize(mean=[1.0, 2.0], std=[1.0, 1.0])), "2 means for 3 places"),
        (lambda: reshape(array, Reshape(shape=[5, -1])), r"12 values of shape \[4, 3\] do not fill \[5, -1\]"),
        (lambda: cast(np.array([np.nan]), Cast(to="int8")), "NaN cannot become int8"),
    ]
    for call, says in refused:
        with pytest.raises(DataError, match=says):
            call()
    assert reshape(array, Reshape(shape=[2, -1])).shape == (2, 6)


SCORES: Array = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]], np.float32)


def test_postprocess_steps_do_what_they_say() -> None:
    chances = postprocess(SCORES, [Softmax()]).scores
    np.testing.assert_allclose(chances, np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True), rtol=1e-6)
    best = postprocess(SCORES, [Argmax(), Labels()], ["a", "b", "c"])
    assert best.indices is not None
    assert best.indices.tolist() == [1, 0]
    assert best.scores.tolist() == [3.0, 0.0]
    assert best.names == ["b", "a"]
    top = postprocess(SCORES, [TopK(k=2), Labels()], ["a", "b", "c"])
    assert top.names == [["b", "c"], ["a", "b"]]
    assert top.scores.tolist() == [[3.0, 2.0], [0.0, 0.0]]
    assert postprocess(SCORES, [TopK(k=9)]).scores.shape == (2, 3)
    assert softmax(np.array([1000.0, 1000.0])).tolist() == [0.5, 0.5]


def one_hot(path: list[int], classes: int = 4) -> Array:
    return np.eye(classes, dtype=np.float32)[path]


def test_ctc_merges_repeats_and_drops_blanks() -> None:
    path = [0, 1, 1, 0, 1, 2, 2, 3, 0]
    assert ctc_text(one_hot(path), ["-", "a", "b", "c"], Ctc()) == "aabc"
    assert ctc_text(one_hot(path), ["a", "b", "c"], Ctc()) == "aabc"
    assert ctc_text(one_hot([3, 0, 0, 3, 0]), ["a", "b", "c"], Ctc(blank=-1, joiner=" ")) == "a a"
    batch = np.stack([one_hot(path), one_hot([2] * 9)])
    assert postprocess(batch, [Ctc()], ["a", "b", "c"]).texts == ["aabc", "b"]
    assert ctc_text(one_hot([0, 0]), ["a", "b", "c"], Ctc()) == ""
    assert ctc_text(one_hot([1, 2, 1])[:, np.newaxis], ["a", "<space>", "b"], Ctc()) == "a a"


POST: dict[str, tuple[list[Step], tuple[str, ...], str]] = {
    "labels before a choice": ([Labels()], ("a", "b", "c"), r"postprocess 1 \(labels\): .*put argmax or topk before"),
    "no labels": ([Argmax(), Labels()], (), "carries no labels"),
    "too few labels": ([Argmax(), Labels()], ("a",), "class 1 has no label, there are 1"),
    "twice": ([Argmax(), TopK()], (), r"postprocess 2 \(topk\): the scores have become an answer"),
    "a step on samples": ([Cast(to="int8")], (), r"it belongs under \[\[step\]\]"),
    "a blank that is no class": ([Ctc(blank=3)], ("a", "b", "c"), "the blank is class 3"),
    "too many characters": ([Ctc()], ("a", "b", "c", "d"), "4 labels for 3 classes"),
}


@pytest.mark.parametrize(("steps", "labels", "says"), POST.values(), ids=POST)
def test_postprocess_that_cannot_work_is_named(steps: list[Step], labels: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        postprocess(SCORES[:, np.newaxis], steps, labels)
