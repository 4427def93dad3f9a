"""A put that may have to be repeated, and how a user keeps it until then: the `op_id` of an `OutcomeUnknown`.

Every try of one operation must have the context of the first one (`protocol.versions`). A try that read the row anew would
have seen what came after the operation, perhaps something that superseded it: the two would then supersede each other, and nothing
would be left. So what a user is given is the operation's id together with its context.
"""

import struct
from dataclasses import dataclass
from typing import Final

from peer.errors import WrongUsage
from protocol.hashing import plain_hash
from protocol.identity import NODE_ID_BYTES, OP_ID_BYTES, NodeId, OpId
from protocol.versions import Dot, Vector

CHECK_BYTES: Final = 8
_NUMBERS: Final = struct.Struct(">QB")
_DOT: Final = struct.Struct(f">{NODE_ID_BYTES}sQ")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to write `path`. What its tries have in common makes them one operation: path, id, context."""

    path: str
    op_id: OpId
    context: Vector
    again: bool = False
    """It was tried before, and may be stored already."""
    size: int = 0
    copies: int = 0
    """Copies of the chunk that has the fewest, 0 where there are no chunks. Size and copies are what the result of a put says."""

    def token(self) -> bytes:
        """Return this attempt as bytes."""
        dots = b"".join(_DOT.pack(*dot) for dot in self.context)
        body = self.op_id + _NUMBERS.pack(self.size, self.copies) + dots
        return body + _check(self.path, body)


def attempt_of(token: bytes, path: str) -> Attempt:
    """Return the next attempt to put `path` after the one that `token` stands for.

    Raises: WrongUsage when it stands for none.
    """
    body, check = token[:-CHECK_BYTES], token[-CHECK_BYTES:]
    if check != _check(path, body):
        raise WrongUsage(f"{path}: this op_id is not that of an OutcomeUnknown of the same path")
    size, copies = _NUMBERS.unpack_from(body, OP_ID_BYTES)
    dots = _DOT.iter_unpack(body[OP_ID_BYTES + _NUMBERS.size :])
    context = tuple(Dot(NodeId(actor), counter) for actor, counter in dots)
    return Attempt(path, OpId(body[:OP_ID_BYTES]), context, True, size, copies)


def _check(path: str, body: bytes) -> bytes:
    return plain_hash(path.encode() + b"\0" + body, CHECK_BYTES)
