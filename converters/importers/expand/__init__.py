"""Operators that stand for several: those of com.microsoft and of the quantised kind, in plain ones."""

from converters.importers.expand.table import adopt, expand

__all__ = ["adopt", "expand"]
