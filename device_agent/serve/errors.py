"""What can go wrong between a request and its answer, each with the HTTP status that tells it.

Not here: `DataError` (the client's tensors do not fit, 400) and what the runtime raises (the model's fault, 500).
"""

from lepton_edge.errors import LeptonError


class UnknownModelError(LeptonError):
    """No model of this name, or not in this version, answers here (404)."""

    code = "unknown-model"


class RequestTimeoutError(LeptonError):
    """A client that does not send what it announced (408)."""

    code = "request-timeout"
    permanent = False


class PayloadTooLargeError(LeptonError):
    """A request with more bytes than the device takes (413)."""

    code = "too-large"


class OverloadedError(LeptonError):
    """More requests wait than the device is ready to hold; try again later (503)."""

    code = "overloaded"
    permanent = False


class InferenceTimeoutError(LeptonError):
    """The runtime did not come back in time (504)."""

    code = "inference-timeout"
    permanent = False


class ListenError(LeptonError):
    """The endpoint cannot listen where it was told to."""

    code = "listen"
