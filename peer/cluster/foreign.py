"""Other clusters of the same key that are met on the network: what a person should know of each, for as long as it is so.

Owns the words, and when they end: a machine that is met as one of another cluster, or of this one, is no more what it was, nor is one at
whose address another answers; and what is not met for SILENT_SECONDS, though it is called, is not there. Knows nothing of who is foreign
(`protocol.succession`) and refuses nobody: the node does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from protocol.identity import short
from protocol.layout import Layout
from protocol.messages import Hello
from protocol.succession import Relation

NOTICES_MAX = 16
LOOK_SECONDS = 60.0
"""A machine of another cluster is called so often."""
SILENT_SECONDS = 300.0


@dataclass(slots=True)
class _Met:
    """A cluster that is not this one, by the first of its machines that was met."""

    peer: Hello
    relation: Relation
    text: str
    heard_at: float


class Foreign:
    """The other clusters that this node knows of."""

    def __init__(
        self,
        say: Callable[[str], None],
        try_address: Callable[[str], None],
        spawn: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        self._say = say
        self._try_address = try_address
        self._spawn = spawn
        self._met: dict[bytes, _Met] = {}

    @property
    def notices(self) -> tuple[str, ...]:
        """What there is to know, one line for each cluster."""
        return tuple(met.text for met in self._met.values())

    def meet(self, peer: Hello, relation: Relation, own: Layout) -> None:
        """Note that a machine of another cluster is there; it is said once for each cluster, however many of its machines are met."""
        self._end(peer, but=peer.cluster_id)
        now = asyncio.get_running_loop().time()
        met = self._met.get(peer.cluster_id)
        if met is not None and met.relation is relation:
            met.heard_at = now
        elif met is not None or len(self._met) < NOTICES_MAX:
            self._met[peer.cluster_id] = new = _Met(peer, relation, words(peer, relation, own), now)
            self._say(new.text)
            self._spawn(self._watch(peer.cluster_id, new))

    def meet_own(self, peer: Hello) -> None:
        """Note that a machine is of this cluster, or of none yet."""
        self._end(peer)

    def clear(self) -> None:
        """Forget all: this node goes on in another cluster."""
        self._met.clear()

    def _end(self, peer: Hello, but: bytes = b"") -> None:
        """Forget the clusters for which this machine stood, except `but`."""
        for cluster_id, met in list(self._met.items()):
            if cluster_id != but and (met.peer.node_id == peer.node_id or not {*met.peer.addresses}.isdisjoint(peer.addresses)):
                del self._met[cluster_id]

    async def _watch(self, cluster_id: bytes, met: _Met) -> None:
        loop = asyncio.get_running_loop()
        while self._met.get(cluster_id) is met:
            if loop.time() - met.heard_at >= SILENT_SECONDS:
                del self._met[cluster_id]
                return
            await asyncio.sleep(LOOK_SECONDS)
            for address in met.peer.addresses:
                self._try_address(address)


def words(peer: Hello, relation: Relation, own: Layout) -> str:
    """Return what a person should know of a peer that is not of this cluster, and what there is to do."""
    node, other, this = f"node {peer.name} ({short(peer.node_id)})", short(peer.cluster_id), short(own.cluster_id)
    match relation:
        case Relation.HEIR:
            return (
                f"cluster {other} goes on by force from this one ({this}), and has this node as well: "
                "it stays for as long as a majority is here"
            )
        case Relation.LEFT:
            return (
                f"{node} belongs to cluster {other}, from which this one ({this}) has gone on by force without it: nothing crosses; "
                "if a majority is there both go on: keep one of the two; else, to let it in as a new machine, stop it, remove `identity` "
                "from its data folder and start it again: it keeps its chunks"
            )
        case Relation.SUCCESSOR:
            return (
                f"{node} belongs to cluster {other}, which has gone on by force from this one ({this}) without this machine: nothing "
                "crosses; if a majority is here both go on: keep one of the two; else, to join it, stop this node, remove `identity` from "
                "its data folder and start it again: it keeps its chunks"
            )
        case Relation.SIBLING:
            return (
                f"{node} belongs to cluster {other}, this one to {this}, and both went on by force from the same cluster: nothing crosses; "
                "keep one of the two; if members of it are in the other one, run `shoal forget --force` there with their names; on the "
                "machines of the other one stop the node, remove `identity` from its data folder and start it again: it joins, and keeps "
                "its chunks"
            )
        case _:
            return (
                f"{node} has the same key but belongs to another cluster ({other}, this is {this}): nothing crosses; "
                "give one of the two a key of its own"
            )
