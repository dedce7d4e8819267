"""Which function reads which operator."""

from collections.abc import Mapping

from converters.importers.tflite.op import Rule
from converters.importers.tflite.ops.control import CONTROL
from converters.importers.tflite.ops.conv import CONV
from converters.importers.tflite.ops.elementwise import ELEMENTWISE
from converters.importers.tflite.ops.index import INDEX
from converters.importers.tflite.ops.recurrent import RECURRENT
from converters.importers.tflite.ops.resize import RESIZE
from converters.importers.tflite.ops.segment import SEGMENT
from converters.importers.tflite.ops.shape import SHAPE


def _merged(*tables: Mapping[str, Rule]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for table in tables:
        twice = sorted(set(found) & set(table))
        if twice:
            raise ValueError(f"two functions read {', '.join(twice)}")
        found.update(table)
    return found


RULES: dict[str, Rule] = _merged(CONTROL, CONV, ELEMENTWISE, INDEX, RECURRENT, RESIZE, SEGMENT, SHAPE)
