"""Latency over the fleet: windows merged by device, model, version and variant."""
