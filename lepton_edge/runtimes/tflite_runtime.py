"""tflite-runtime 2.14: for devices that LiteRT has no wheel for (32-bit ARM). Its last release wants numpy < 2."""

from lepton_edge.runtimes._tflite import TfliteRuntime

RUNTIME = TfliteRuntime(
    "tflite-runtime",
    title="tflite-runtime",
    module="tflite_runtime.interpreter",
    distributions=("tflite-runtime", "tflite-runtime-nightly"),
    numpy_below=2,
)
