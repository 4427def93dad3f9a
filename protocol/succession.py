"""A cluster that goes on from another by force (`protocol.layout.forced`): what hellos tell of it, and what two nodes are to each other.

Whoever is a member of the new cluster, and has no layout of the old one that the new one does not go on from, learns the chain from it and
goes over. Everybody else of the old one is foreign. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol.codec import decode, encode
from protocol.fields import Flag
from protocol.identity import NodeId
from protocol.layout import Formers, Layout
from protocol.messages import Hello

FORMER: Final = "former"
"""Key in `Hello.optional`: what the sender's cluster goes on from; left out if it began as every cluster does."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a node tells another one of the past of its cluster."""

    former: Formers
    has_receiver: Flag
    """Whether the receiver is one of its members."""


class Relation(Enum):
    """What a peer is to a node."""

    OURS = "of the same cluster, or of none yet"
    HEIR = "its cluster goes on from ours and has this node: it is to be followed"
    FOLLOWER = "our cluster goes on from its and has it: it may learn the chain"
    SUCCESSOR = "its cluster goes on from ours without this node"
    LEFT = "our cluster goes on from its without it"
    SIBLING = "its cluster and ours went on from the same one"
    FOREIGN = "its cluster and ours have nothing in common but the key"


def told(layout: Layout, receiver: NodeId) -> dict[str, bytes]:
    """Return what a hello to `receiver` carries."""
    return {FORMER: encode(Past(layout.record.former, receiver in layout.members))} if layout.record.former else {}


def heard(optional: Mapping[str, bytes]) -> Past:
    """Return what a hello says of the past of its sender's cluster.

    Raises: RemoteProtocolError.
    """
    return decode(Past, optional[FORMER]) if FORMER in optional else Past((), False)


def relation(own: Layout | None, peer: Hello, past: Past) -> Relation:
    """Return what the sender of a hello, in which it told `past`, is to a node with the layout `own`."""
    if own is None or peer.cluster_id in (b"", own.cluster_id):
        return Relation.OURS
    for former in past.former:
        if former.cluster_id == own.cluster_id:
            return Relation.HEIR if past.has_receiver and own.version <= former.version else Relation.SUCCESSOR
    for former in own.record.former:
        if former.cluster_id == peer.cluster_id:
            follows = peer.node_id in own.members and peer.layout_version <= former.version
            return Relation.FOLLOWER if follows else Relation.LEFT
    is_sibling = {former.cluster_id for former in past.former} & {former.cluster_id for former in own.record.former}
    return Relation.SIBLING if is_sibling else Relation.FOREIGN
