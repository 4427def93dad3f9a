"""What can go wrong between two machines, as numbered codes and typed exceptions.

Two enums, both part of the wire: `CloseCode` ends a link, `ErrorCode` answers one
request. The number is the contract; the name is for people. Never renumber.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a link was closed. Sent in the last frame where the peer can still be expected to read it."""

    NORMAL = 0
    """Nothing is wrong: the sender is stopping or no longer needs the link."""
    PROTOCOL_ERROR = 1
    """Bytes that no correct peer sends."""
    FRAME_TOO_LARGE = 2
    """A length beyond the limits; nothing was allocated for it."""
    VERSION_MISMATCH = 3
    """The two ranges of protocol versions do not meet."""
    FOREIGN_CLUSTER = 4
    """Same key, another cluster: nothing but this may cross."""
    IDENTITY_MISMATCH = 5
    """The hello names another node than the certificate proves."""
    DUPLICATE_LINK = 6
    """Another link between the two nodes stays."""
    KEEPALIVE_TIMEOUT = 7
    """Nothing was heard for too long."""
    HELLO_TIMEOUT = 8
    """No hello in time."""
    SELF = 9
    """A node reached itself."""
    OVERLOADED = 10
    """More links than this node accepts."""
    INTERNAL = 11
    """The sender failed; the reason is in its log."""
    FORMER_LIFE = 12
    """A later life of one of the two is known: its disk was put back to an earlier state, or copied."""


class ErrorCode(IntEnum):
    """Why a request was not done. `retry_helps` says whether the same request may succeed later or elsewhere."""

    INVALID = 1
    """The request contradicts itself or names what cannot exist."""
    UNSUPPORTED = 2
    """This node, or this role, does not serve that request."""
    STALE = 3
    """The stamp is not this replica's own; the answer carries its layout version."""
    NOT_REPLICA = 4
    """This node is no replica of that partition in its own layout."""
    BUSY = 5
    """Out of payload memory; the payload was thrown away."""
    FULL = 6
    """The disk takes no more chunks."""
    CORRUPT = 7
    """The stored thing failed its checksum. Never a vote, never "absent"."""
    NOT_FOUND = 8
    """This node has no such chunk. Says nothing about any other node."""
    DEADLINE = 9
    """The deadline passed before the work was done; whatever was begun may still take effect."""
    CANCELLED = 10
    """The sender cancelled it."""
    UNAVAILABLE = 11
    """Not enough nodes answered and nothing was changed."""
    OUTCOME_UNKNOWN = 12
    """It may or may not take effect; a retry with the same op_id is safe."""
    WRONG_HASH = 13
    """The payload is not what its address says; nothing was stored."""
    NO_CLUSTER = 14
    """This node belongs to no cluster yet."""
    EXISTS = 15
    """What should be made is there already, or is of another kind."""
    TOO_LARGE = 16
    """The row would exceed its limit."""
    INTERNAL = 17
    """A bug or a failing store at the answering node."""

    @property
    def retry_helps(self) -> bool:
        """Whether the same request can succeed later or at another node."""
        return self in _RETRY_HELPS


_RETRY_HELPS = frozenset(
    {
        ErrorCode.STALE,
        ErrorCode.NOT_REPLICA,
        ErrorCode.BUSY,
        ErrorCode.FULL,
        ErrorCode.CORRUPT,
        ErrorCode.NOT_FOUND,
        ErrorCode.DEADLINE,
        ErrorCode.UNAVAILABLE,
        ErrorCode.OUTCOME_UNKNOWN,
        ErrorCode.NO_CLUSTER,
        ErrorCode.WRONG_HASH,
        ErrorCode.INTERNAL,
    }
)


class ProtocolError(Exception):
    """Base of what the pure machines raise."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the state of the link does not allow: a bug of the caller."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what no correct peer sends. The link is to be closed with `code`; no other link is touched."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class InvalidPath(ValueError):
    """A path that the namespace refuses. `part` is the offending component or property."""

    def __init__(self, reason: str, part: str) -> None:
        super().__init__(f"{reason}: {part!r}")
        self.reason = reason
        self.part = part
