"""Calibration: what values a model's tensors take on samples, in bounded memory, and the ranges that follow."""

from converters.calibrate.histogram import Histogram
from converters.calibrate.ranges import Method, Range, Resolution, choose_range, expected_error, resolution
from converters.calibrate.runner import calibrate
from converters.calibrate.statistics import Statistics, load_statistics, save_statistics

__all__ = [
    "Histogram",
    "Method",
    "Range",
    "Resolution",
    "Statistics",
    "calibrate",
    "choose_range",
    "expected_error",
    "load_statistics",
    "resolution",
    "save_statistics",
]
