"""Networks of many architectures, small and with seeded random weights: what a writer of TFLite meets in the wild."""
