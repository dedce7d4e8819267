"""Latency as it was measured on devices: histograms that merge, in windows that count once."""
