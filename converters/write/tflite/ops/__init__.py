"""The lowerings, by family. Importing this package fills the table."""

from converters.write.tflite.ops import (  # noqa: F401 - each fills the table
    activation,
    conv,
    deconv,
    einsum,
    matmul,
    normalise,
    pool,
    recurrent,
    resize,
    shuffle,
)
from converters.write.tflite.ops import (  # noqa: F401 - likewise
    arithmetic,
    cast,
    compare,
    functions,
    gather,
    move,
    pad,
    reduce,
    select,
    shape,
)
