"""What may happen on a link, and when: the legality of messages in one table.

A link has a phase for each direction. A pair of phase and message class that is not in the
table is a protocol error of the peer where it was received, and a bug of this side where it was to be sent.
"""

from enum import Enum, auto

from protocol.messages import Answer, Close, Control, Hello, Message, Request


class Phase(Enum):
    """How far one direction of a link has come."""

    CONNECTED = auto()
    """Identities are proven; no hello has passed in this direction."""
    OPEN = auto()
    """The hello has passed."""
    CLOSED = auto()
    """The close has passed: nothing follows."""


class MessageClass(Enum):
    """As far as legality goes, messages are of five classes."""

    HELLO = auto()
    CONTROL = auto()
    REQUEST = auto()
    ANSWER = auto()
    CLOSE = auto()


def message_class(message: Message) -> MessageClass:
    """Return the class of a message."""
    if isinstance(message, Hello):
        return MessageClass.HELLO
    if isinstance(message, Close):
        return MessageClass.CLOSE
    if isinstance(message, Request):
        return MessageClass.REQUEST
    if isinstance(message, Answer):
        return MessageClass.ANSWER
    assert isinstance(message, Control)
    return MessageClass.CONTROL


SUCCESSOR: dict[tuple[Phase, MessageClass], Phase] = {
    (Phase.CONNECTED, MessageClass.HELLO): Phase.OPEN,
    (Phase.CONNECTED, MessageClass.CLOSE): Phase.CLOSED,
    (Phase.OPEN, MessageClass.CONTROL): Phase.OPEN,
    (Phase.OPEN, MessageClass.REQUEST): Phase.OPEN,
    (Phase.OPEN, MessageClass.ANSWER): Phase.OPEN,
    (Phase.OPEN, MessageClass.CLOSE): Phase.CLOSED,
}
"""The phase after a message of that class has passed; a pair that is missing is illegal."""
