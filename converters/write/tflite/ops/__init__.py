"""The lowerings, by family. Importing this package fills the table."""

from converters.write.tflite.ops import (  # noqa: F401 - each fills the table
    activation,
    arithmetic,
    cast,
    compare,
    conv,
    deconv,
    einsum,
    functions,
    gather,
    matmul,
    move,
    normalise,
    pad,
    pool,
    recurrent,
    reduce,
    resize,
    select,
    shape,
    shuffle,
)
