"""Every error that lepton-edge raises on purpose.

One root; the branches part by what the caller can do about it. Each class has a stable `code` (it travels in
`reported`, in JSON and in the database), says whether trying again can help (`permanent`), and which exit status
a command ends with. Messages say what was wrong, where, and what to do.

    LeptonError
    +-- UsageError                a command or call that makes no sense (exit 2)
    +-- ModelError                the model file
    |   +-- UnsupportedOperatorError
    |   +-- NotYetSupportedError
    +-- DataError                 the user's samples, labels, preprocessing
    +-- BudgetError               no variant kept the accuracy asked for (exit 3)
    +-- BundleError               a bundle, its manifest or a file in it
    |   +-- HashMismatchError
    +-- MessageError              bytes from the network that are no valid message
    |   +-- AuthenticationError
    +-- SignatureError            a signature that does not hold
    +-- GoalRefusedError          a rightly signed goal that is not for this device, or stale
    +-- TransferError             chunks that do not come (temporary)
    +-- SelfTestError             a variant that does not compute what it should
    +-- RuntimeUnavailableError   no runtime here for a variant
    +-- StorageError              this machine's disk
    |   +-- DiskFullError
    +-- ConnectionFailedError     a broker or manager that does not answer (temporary)
    +-- ManagerError              the manager answered with an error
    +-- RolledBackError           a rollout ended rolled back (exit 4)
"""

from typing import ClassVar


class LeptonError(Exception):
    """Root of all errors of lepton-edge."""

    code: ClassVar[str] = "error"
    permanent: ClassVar[bool] = True
    exit_status: ClassVar[int] = 1


class UsageError(LeptonError):
    code = "usage"
    exit_status = 2


class ModelError(LeptonError):
    code = "model"


class UnsupportedOperatorError(ModelError):
    """An operator that cannot be converted; its type is in the message and in `operator`."""

    code = "unsupported-operator"

    def __init__(self, message: str, *, operator: str) -> None:
        super().__init__(message)
        self.operator = operator


class NotYetSupportedError(ModelError):
    """Something that a later version will do; the message says what works today."""

    code = "not-yet"


class DataError(LeptonError):
    code = "data"


class BudgetError(LeptonError):
    code = "budget"
    exit_status = 3


class BundleError(LeptonError):
    code = "bundle-invalid"


class HashMismatchError(BundleError):
    code = "hash-mismatch"


class MessageError(LeptonError):
    code = "message-invalid"


class AuthenticationError(MessageError):
    """The MAC is wrong: the only message fault that counts as an attack."""

    code = "mac-invalid"


class SignatureError(LeptonError):
    code = "signature-invalid"


class GoalRefusedError(LeptonError):
    """A goal that this device does not follow; `reason_code` says which rule refused it."""

    code = "goal-refused"

    def __init__(self, message: str, *, reason_code: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class TransferError(LeptonError):
    code = "transfer"
    permanent = False


class SelfTestError(LeptonError):
    code = "self-test"


class RuntimeUnavailableError(LeptonError):
    code = "no-runtime"


class StorageError(LeptonError):
    code = "storage"


class DiskFullError(StorageError):
    """No space left; temporary, because somebody may free some."""

    code = "disk-full"
    permanent = False


class ConnectionFailedError(LeptonError):
    code = "connection"
    permanent = False


class ManagerError(LeptonError):
    """The manager refused a request; `status` is the HTTP status."""

    code = "manager"

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RolledBackError(LeptonError):
    code = "rolled-back"
    exit_status = 4
