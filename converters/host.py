"""What stands in on this machine for runtimes that are on devices alone."""

from lepton_edge.errors import RuntimeUnavailableError
from lepton_edge.runtimes import Runtime, installed, runtimes


def host_runtime(name: str) -> Runtime:
    """What runs a runtime's files here: itself where it is installed, else another one that reads the same format.

    tflite-runtime wants numpy below 2, so that a host mostly has LiteRT alone: the same operators, newer kernels.

    Raises:
        RuntimeUnavailableError: there is none; the message says what to install.
    """
    here = installed()
    if name in here:
        return here[name]
    wanted = runtimes().get(name)
    found = [one for one in here.values() if wanted is not None and one.format == wanted.format]
    if not found:
        raise RuntimeUnavailableError(
            f"the runtime {name} is not installed here: pip install 'lepton-edge[convert]' brings all that are needed, "
            "and --formats leaves a format out"
        )
    return found[0]


def stand_in(name: str) -> str:
    """Runtime and version that answer here for one that is not installed; "" where it answers itself."""
    runtime = host_runtime(name)
    return "" if runtime.name == name else f"{runtime.name} {runtime.version()}"
