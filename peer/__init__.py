"""shoal's node, and the clients that people program with.

`Client` (asynchronous), `connect` (blocking) and the errors are all that is public here; the rest of the package is the node.
"""

from typing import TYPE_CHECKING, Any

from peer.errors import (
    AlreadyThere,
    DataLost,
    LocalFault,
    NoSuchPath,
    NotAllowed,
    OutcomeUnknown,
    ShoalError,
    SourceChanged,
    Unavailable,
    WrongUsage,
)

if TYPE_CHECKING:
    from peer.client.asynchronous import Client
    from peer.client.blocking import connect

__all__ = [
    "AlreadyThere",
    "Client",
    "DataLost",
    "LocalFault",
    "NoSuchPath",
    "NotAllowed",
    "OutcomeUnknown",
    "ShoalError",
    "SourceChanged",
    "Unavailable",
    "WrongUsage",
    "connect",
]


def __getattr__(name: str) -> Any:
    # Both build their world from the machine; who simulates one, or imports a part of the node, must not load that.
    if name == "Client":
        from peer.client.asynchronous import Client

        return Client
    if name == "connect":
        from peer.client.blocking import connect

        return connect
    raise AttributeError(f"module 'peer' has no attribute {name!r}")
