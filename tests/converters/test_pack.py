"""What a bundle says of the packages that made it."""

import importlib.metadata

import pytest

from converters.pack import versions
from lepton_edge.version import VERSION

ALWAYS = {"lepton-edge", "ai-edge-litert", "flatbuffers", "onnx", "onnx-ir", "onnxruntime", "networkx", "numpy"}
MORE = {"": set(), "onnx": set(), "torch": {"torch", "onnxscript"}, "keras": {"keras", "torch", "onnxscript"}}


def installed(name: str) -> bool:
    return any(importlib.metadata.distributions(name=name))


@pytest.mark.parametrize(("imported", "more"), MORE.items())
def test_the_packages_that_decide_the_bytes_are_named(imported: str, more: set[str]) -> None:
    found = versions(imported)
    assert set(found) == ALWAYS | {name for name in more if installed(name)}
    assert found.pop("lepton-edge") == VERSION
    assert found == {name: importlib.metadata.version(name) for name in found}


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.pack._IMPORTING_PACKAGES", {"torch": ("no-such-package-at-all",)})
    assert set(versions("torch")) == ALWAYS
