"""The one form that every source's graph is brought into before anything is measured, planned or written."""

from converters.graph.canonical.run import canonicalise

__all__ = ["canonicalise"]
