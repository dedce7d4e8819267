"""What LiteRT and tflite-runtime share: both offer one Python class, `Interpreter`, around the same kernels.

Rules kept here:

- Arrays that leave are copies: the interpreter's own memory moves when a shape changes.
- The common case, in which shapes are those of the run before, allocates nothing but the outputs.
- State tensors (of recurrent operators) start at zero in each run, as a graph without state says.
- A file is looked at before the library reads it, which does not check every offset.
"""

import base64
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import DataError, RuntimeUnavailableError, SelfTestError
from lepton_edge.runtimes._foreign import first_line, without_lines

XNNPACK = "XNNPACK"
BUILTIN = "builtin"
_RESOLVERS = {XNNPACK: "AUTO", BUILTIN: "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}
"""Provider -> member of the library's OpResolverType."""

_HEADER_BYTES = 8
_IDENTIFIER = b"TFL3"

_ABSOLUTE = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAtAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "IAAAAAQAAADu////BAAAAAEAAAABAAAAAAAGAAgABAAGAAAABAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAZQAAAAAAAGU="
)
"""A TFLite file: y = |x| of one float32. The library says once in a process, on stderr, that it has made an XNNPACK
delegate; it says so of this file, so that nothing is held back while others load: what a crash says is heard."""
_INTRODUCED: set[str] = set()

Shapes = list[tuple[int, ...]]


class Details(TypedDict):
    """What the library says of a tensor, as far as it is needed here."""

    name: str
    index: int
    shape: npt.NDArray[np.int32]


class SignatureRunner(Protocol):
    """The library's view of one signature of a file."""

    def get_input_details(self) -> dict[str, Details]: ...

    def get_output_details(self) -> dict[str, Details]: ...


class Interpreter(Protocol):
    """The library's class, as far as it is used here."""

    def get_input_details(self) -> list[Details]: ...

    def get_output_details(self) -> list[Details]: ...

    def get_signature_list(self) -> dict[str, object]: ...

    def get_signature_runner(self, key: str) -> SignatureRunner: ...

    def resize_tensor_input(self, index: int, size: Sequence[int], *, strict: bool) -> None: ...

    def allocate_tensors(self) -> None: ...

    def reset_all_variables(self) -> None: ...

    def set_tensor(self, index: int, value: Array) -> None: ...

    def invoke(self) -> None: ...

    def get_tensor(self, index: int) -> Array: ...


class Place(NamedTuple):
    """An input or output of a file: its tensor's index, and the names by which it is known, the best one first."""

    tensor: int
    names: tuple[str, ...]


class TfliteExecutor:
    """An interpreter that holds a file.

    Inputs and outputs are known by the names of the file's signature and by those of its tensors; outputs come under
    both.
    """

    def __init__(self, interpreter: Interpreter, library: str, where: str) -> None:
        self._interpreter = interpreter
        self._library = library
        self._where = where
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        taken, given = _signature(interpreter, inputs, outputs)
        self._inputs = _places(inputs, taken)
        self._outputs = _places(outputs, given)
        self._shapes: Shapes | None = [tuple(int(size) for size in details["shape"]) for details in inputs]

    def execute(self, inputs: Mapping[str, Array]) -> Arrays:
        arrays = self._ordered(inputs)
        shapes = [array.shape for array in arrays]
        interpreter = self._interpreter
        try:
            if shapes != self._shapes:
                self._resize(arrays, shapes)
            interpreter.reset_all_variables()
            for place, array in zip(self._inputs, arrays, strict=True):
                interpreter.set_tensor(place.tensor, array)
            interpreter.invoke()
            results = [interpreter.get_tensor(place.tensor) for place in self._outputs]
        except (ValueError, RuntimeError, TypeError) as cause:
            raise SelfTestError(f"{self._where}: {self._library} failed: {first_line(cause)}") from cause
        return {name: array for place, array in zip(self._outputs, results, strict=True) for name in place.names}

    def _ordered(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The inputs in the file's order. Raises SelfTestError where they are not the file's, DataError where one is
        empty: the kernels take none (some of them crash).
        """
        arrays = [inputs[name] for place in self._inputs for name in place.names if name in inputs]
        if len(arrays) != len(self._inputs) or len(inputs) != len(arrays):
            known = [place.names[0] if place.names else f"#{place.tensor}" for place in self._inputs]
            raise SelfTestError(f"{self._where}: inputs are {sorted(inputs)}, the file takes {known}")
        for array in arrays:
            if not array.size:
                raise DataError(
                    f"{self._where}: an input has shape {list(array.shape)}, {self._library} takes no empty one"
                )
        return arrays

    def _resize(self, arrays: Sequence[Array], shapes: Shapes) -> None:
        """Make room for inputs of these shapes; only axes that the file leaves open may differ from its own."""
        self._shapes = None  # what a failure leaves behind is not known
        for place, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.resize_tensor_input(place.tensor, array.shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _signature(
    interpreter: Interpreter, inputs: Iterable[Details], outputs: Iterable[Details]
) -> tuple[dict[int, str], dict[int, str]]:
    """Names of inputs and outputs by tensor index, of the first signature that is the main subgraph's; else none."""
    wanted = {details["index"] for details in inputs}, {details["index"] for details in outputs}
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        taken = {details["index"]: name for name, details in runner.get_input_details().items()}
        given = {details["index"]: name for name, details in runner.get_output_details().items()}
        if (set(taken), set(given)) == wanted:
            return taken, given
    return {}, {}


def _places(details: Sequence[Details], signature: Mapping[int, str]) -> list[Place]:
    """Where the names of tensors are: a name that the signature gives, or that two tensors bear, names no other."""
    names = [one["name"] for one in details]
    spoken_for = {*signature.values(), *(name for name in names if names.count(name) > 1)}
    return [
        Place(tensor=one["index"], names=(*_own(signature, one["index"]), *({one["name"]} - spoken_for)))
        for one in details
    ]


def _own(signature: Mapping[int, str], index: int) -> list[str]:
    return [signature[index]] if index in signature else []


class TfliteRuntime:
    """An adapter: one per library."""

    format = "tflite"

    def __init__(
        self, name: str, *, title: str, module: str, distributions: Sequence[str], numpy_below: int | None = None
    ) -> None:
        """Describe a library; nothing is imported yet.

        Args:
            name: in manifests.
            title: for people.
            module: that holds `Interpreter`.
            distributions: that bring it.
            numpy_below: the first major version of NumPy that it does not work with.
        """
        self.name = name
        self._title = title
        self._module = module
        self._distributions = distributions
        self._numpy_below = numpy_below

    def version(self) -> str | None:
        if self._numpy_below is not None and int(np.__version__.partition(".")[0]) >= self._numpy_below:
            return None
        for distribution in self._distributions:
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None

    def providers(self) -> list[str]:
        importlib.import_module(self._module)
        return [XNNPACK, BUILTIN]

    def load(self, file: Path, *, threads: int, provider: str | None = None) -> TfliteExecutor:
        resolver = _RESOLVERS.get(provider or XNNPACK)
        if resolver is None:
            raise RuntimeUnavailableError(f"{self._title} has no provider {provider!r}; it has {sorted(_RESOLVERS)}")
        library = self._library()
        try:
            _look_at(file)
            interpreter: Interpreter = library.Interpreter(
                model_path=str(file),
                num_threads=threads,
                experimental_op_resolver_type=library.OpResolverType[resolver],
            )
            interpreter.allocate_tensors()
            return TfliteExecutor(interpreter, self._title, file.name)
        except (OSError, ValueError, RuntimeError, TypeError) as cause:
            raise SelfTestError(f"{file.name}: {self._title} cannot load it: {first_line(cause)}") from cause

    def _library(self) -> ModuleType:
        """The library, with what it says of itself once already said. Raises RuntimeUnavailableError."""
        try:
            library = importlib.import_module(self._module)
        except (ImportError, OSError) as cause:
            raise RuntimeUnavailableError(f"{self._title} does not load here: {first_line(cause)}") from cause
        if self._module not in _INTRODUCED:
            _INTRODUCED.add(self._module)
            with without_lines(b"INFO: "), suppress(RuntimeError, ValueError):
                library.Interpreter(model_content=_ABSOLUTE, num_threads=1).allocate_tensors()
        return library


def _look_at(file: Path) -> None:
    """Raise ValueError where the file is no TFLite flatbuffer at all."""
    with file.open("rb") as opened:
        header, size = opened.read(_HEADER_BYTES), file.stat().st_size
    if len(header) < _HEADER_BYTES or header[4:] != _IDENTIFIER:
        raise ValueError(f"no TFLite file: bytes 4 to 7 are {header[4:]!r}, not {_IDENTIFIER!r}")
    root = int.from_bytes(header[:4], "little")
    if root + 4 > size:
        raise ValueError(f"truncated: its root is at byte {root}, its size is {size}")
