"""What can go wrong for a user of the cluster, typed; each class is one exit code of the command line.

`OSError` does not exist above `peer.real`; what the world refuses arrives as one of these.
"""

from typing import ClassVar

from protocol.errors import ErrorCode


class ShoalError(Exception):
    """Base of every error that a user may see. The text is one line: what happened, to what, what to do next."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "failed"


class WrongUsage(ShoalError):
    """The request itself cannot be right."""

    exit_code = 2
    code = "usage"


class NoSuchPath(ShoalError):
    """The path does not exist."""

    exit_code = 3
    code = "no-such-path"


class Unavailable(ShoalError):
    """Not enough nodes could be reached; nothing was changed."""

    exit_code = 4
    code = "unavailable"


class Waiting(Unavailable):
    """A node answers and belongs to no cluster yet. The text says what it waits for."""


class AlreadyThere(ShoalError):
    """Something is there already, or is of another kind, or two writes conflict."""

    exit_code = 5
    code = "conflict"


class OutcomeUnknown(ShoalError):
    """The change may or may not have taken effect, or did in part; the same call again is safe."""

    exit_code = 6
    code = "outcome-unknown"

    def __init__(self, text: str, op_id: bytes = b"") -> None:
        super().__init__(text)
        self.op_id = op_id
        """Of a put or a copy: the same call with it, at any node, takes effect once at most. Empty for what needs none."""


class DataLost(ShoalError):
    """Every member was asked and none has an intact copy."""

    exit_code = 7
    code = "lost"


class NotAllowed(ShoalError):
    """The key does not fit."""

    exit_code = 8
    code = "not-allowed"


class StorageFailed(ShoalError):
    """This node's storage failed: it must acknowledge nothing any more and stop."""

    exit_code = 75
    code = "storage-failed"


class IdentityLost(StorageFailed):
    """This node's disk is not what it was: what was promised under its id is not known any more."""

    code = "identity-lost"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the disk of this node was put back to an earlier state, or copied ({reason}): its id is given up, nothing is deleted; "
            "start it again: it begins as a new member and keeps its chunks"
        )
        self.reason = reason


class LocalFault(ShoalError):
    """A file of this machine could not be read or written."""


class SourceChanged(ShoalError):
    """The source did not have the bytes that it was said to have; nothing was changed."""


class LinkLost(Exception):
    """The link to a peer could not be made or ended before the answer came: the outcome is not known."""


class Unreachable(LinkLost):
    """No link could be made: the request was never sent."""


class GoneOver(Unreachable):
    """The node is a member of a cluster that goes on by force from the one of this client: it answers nothing here any more."""


class RequestFailed(Exception):
    """The peer answered a request with `Failure`.

    Attributes: code (ErrorCode), reason (str), layout_version (of the peer, 0 if it has none).
    """

    def __init__(self, code: ErrorCode, reason: str, layout_version: int = 0) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason
        self.layout_version = layout_version


class Refused(Exception):
    """Raised by a handler to answer a request with `Failure(code, reason)`."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class ConnectFailed(Exception):
    """No connection to an address. `refused` tells an answer ("nobody listens") from silence."""

    def __init__(self, address: str, reason: str, *, refused: bool = False, wrong_key: bool = False) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason
        self.refused = refused
        self.wrong_key = wrong_key


class DiskError(Exception):
    """A file operation failed, harmlessly for what is stored: not found, no space, ...

    Attributes: path, reason, and `full` when there is no space, `missing` when there is no such file, `damaged` when the file is there
    and what it contains cannot be read any more.
    """

    def __init__(self, path: str, reason: str, *, full: bool = False, missing: bool = False, damaged: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.full = full
        self.missing = missing
        self.damaged = damaged


class StoreCorrupt(Exception):
    """A database cannot be read. `name` says which; what follows depends on what was in it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
