"""lepton-edge: trained models, made small and fast, pushed safely to devices, measured there."""

import importlib
import os
from typing import TYPE_CHECKING

from lepton_edge.extras import advice

if TYPE_CHECKING:
    from converters.api import benchmark, evaluate, load_model, quantize_model
    from device_agent.local import Agent
    from lepton_edge.bundle import Bundle
    from lepton_edge.errors import LeptonError, UnsupportedOperatorError
    from lepton_edge.version import VERSION as __version__  # noqa: N811 - the name that tools look for

# ONNX Runtime 1.29 and later sends usage data to its maker and writes a device id to disk unless this is set before it
# is loaded. A device speaks to its own manager and to nobody else (docs/decisions/0005); set it to 0 to allow it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Agent",
    "Bundle",
    "LeptonError",
    "UnsupportedOperatorError",
    "__version__",
    "benchmark",
    "evaluate",
    "load_model",
    "quantize_model",
]

_HOME = {
    "Agent": ("device_agent.local", "Agent"),
    "Bundle": ("lepton_edge.bundle", "Bundle"),
    "LeptonError": ("lepton_edge.errors", "LeptonError"),
    "UnsupportedOperatorError": ("lepton_edge.errors", "UnsupportedOperatorError"),
    "__version__": ("lepton_edge.version", "VERSION"),
    "benchmark": ("converters.api", "benchmark"),
    "evaluate": ("converters.api", "evaluate"),
    "load_model": ("converters.api", "load_model"),
    "quantize_model": ("converters.api", "quantize_model"),
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562): importing lepton_edge imports no room."""
    if name not in _HOME:
        raise AttributeError(f"module 'lepton_edge' has no attribute {name!r}")
    module, attribute = _HOME[name]
    try:
        value: object = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if told := advice(error):
            error.add_note(told)
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
