"""LiteRT: the runtime of TFLite files. It sends no usage data (2.3: its libraries call no socket function)."""

from lepton_edge.runtimes._tflite import TfliteRuntime

RUNTIME = TfliteRuntime(
    "litert",
    title="LiteRT",
    module="ai_edge_litert.interpreter",
    distributions=("ai-edge-litert", "ai-edge-litert-nightly"),
)
