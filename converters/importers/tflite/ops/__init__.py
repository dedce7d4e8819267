"""What each operator of TFLite is in ONNX: a module for each kind of operator, each with a table at its end."""
