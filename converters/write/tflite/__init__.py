"""TFLite files from canonical graphs, float or quantised, without TensorFlow."""
