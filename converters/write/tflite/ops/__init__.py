"""The lowerings, by family. Importing this package fills the table."""

from converters.write.tflite.ops import activation, conv, deconv, matmul, pool  # noqa: F401 - each fills the table
