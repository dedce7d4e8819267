"""What follows from a program as a whole: activations become part of the operators before them, dead steps go, and
inputs and outputs may be int8 at once.
"""

from converters.write.tflite.program import Program, Step, Value

_FUSED = frozenset({"RELU", "RELU_N1_TO_1", "RELU6"})
"""The schema names the activations that operators end with as it names the operators."""
_TAKES = frozenset(
    {
        "ADD",
        "AVERAGE_POOL_2D",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "DIV",
        "FULLY_CONNECTED",
        "MAX_POOL_2D",
        "MUL",
        "SUB",
    }
)
_FUSED_TYPES = {"float32", "int8"}


def fuse_activations(program: Program) -> None:
    """Let operators end with the activation that alone reads them."""
    readers, outputs = program.readers(), set(program.outputs)
    writers = {value: step for step in program.steps for value in step.outputs}
    kept: list[Step] = []
    for step in program.steps:
        source = step.inputs[0] if step.inputs else None
        if step.code in _FUSED and isinstance(source, Value) and source not in outputs:
            writer, target = writers.get(source), step.outputs[0]
            if writer is not None and len(readers[source]) == 1 and _fits(writer, source, target):
                writer.outputs[0] = target
                writer.options["fused_activation_function"] = step.code
                writers[target] = writer
                continue
        kept.append(step)
    program.steps = kept


def _fits(writer: Step, source: Value, target: Value) -> bool:
    if writer.code not in _TAKES or writer.options.get("fused_activation_function") or len(writer.outputs) != 1:
        return False
    scales = source.quantization
    alike = target.quantization is None if scales is None else scales.same(target.quantization)
    return alike and source.dtype in _FUSED_TYPES and source.dtype == target.dtype


def drop_dead(program: Program) -> None:
    """Take away the steps that nobody reads."""
    alive: set[Value] = set(program.outputs)
    kept: list[Step] = []
    for step in reversed(program.steps):
        if any(value in alive for value in step.outputs):
            alive.update(value for value in step.inputs if isinstance(value, Value))
            kept.append(step)
    program.steps = kept[::-1]


def open_borders(program: Program) -> None:
    """Let an input that is only quantised be fed in int8, and an output that was only dequantised be given in int8."""
    readers = program.readers()
    for index, value in enumerate(program.inputs):
        steps = readers.get(value, [])
        if len(steps) == 1 and steps[0].code == "QUANTIZE" and value not in program.outputs:
            fed = steps[0].outputs[0]
            fed.name = value.name
            program.inputs[index] = fed
            program.steps.remove(steps[0])
    writers = {value: step for step in program.steps for value in step.outputs}
    for index, value in enumerate(program.outputs):
        writer = writers.get(value)
        if writer is not None and writer.code == "DEQUANTIZE" and not readers.get(value):
            source = writer.inputs[0]
            if isinstance(source, Value) and source not in program.outputs and source not in program.inputs:
                source.name = value.name
                program.outputs[index] = source
                program.steps.remove(writer)
