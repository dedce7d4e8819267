"""Questions to and rewritings of an ONNX graph that need no data."""
