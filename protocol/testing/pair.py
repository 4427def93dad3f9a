"""Both ends of a link without a socket between them."""

from collections.abc import Callable

from protocol.connection import Connection, Event, PayloadBudget
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of
from protocol.messages import Hello, LinkKind, Role


def some_node_id(name: str) -> NodeId:
    """Return the id of an imagined node."""
    return node_id_of(plain_hash(name.encode()))


def some_hello(node: str, kind: LinkKind = LinkKind.CTL, **changes: object) -> Hello:
    """Return the hello of an imagined member; `changes` replace fields."""
    fields: dict[str, object] = {
        "version_lowest": 1,
        "version_highest": 1,
        "features": 0,
        "link": kind,
        "role": Role.MEMBER,
        "node_id": some_node_id(node),
        "boot": 1,
        "cluster_id": b"",
        "layout_version": 0,
        "layout_digest": b"",
        "name": node,
        "zone": "",
        "capacity_bytes": 0,
        "addresses": ("192.0.2.1:7400",),
        "optional": {},
    }
    return Hello(**{**fields, **changes})  # type: ignore[arg-type]


class ConnectionPair:
    """A dialler `a` and an accepting side `b`, and the bytes between them."""

    def __init__(
        self,
        kind: LinkKind = LinkKind.CTL,
        *,
        hello_a: Callable[[LinkKind], Hello] | None = None,
        hello_b: Callable[[LinkKind], Hello] | None = None,
        budget_bytes: int = 1 << 30,
    ) -> None:
        """Begin a link of `kind`. Both prove the identity of their names unless their hello says otherwise."""
        self.now = 0.0
        self.budget = PayloadBudget(budget_bytes)
        make_a = hello_a if hello_a is not None else lambda kind: some_hello("a", kind)
        make_b = hello_b if hello_b is not None else lambda kind: some_hello("b", kind)
        self.a = Connection(make_a, kind, some_node_id("b"), self.budget, self.now)
        self.b = Connection(make_b, None, some_node_id("a"), self.budget, self.now)
        self.events_a: list[Event] = []
        self.events_b: list[Event] = []

    def exchange(self, split: Callable[[bytes], list[bytes]] = lambda data: [data]) -> None:
        """Carry bytes both ways until neither side has any; `split` cuts each portion."""
        while True:
            to_b = b"".join(self.a.take_output())
            to_a = b"".join(self.b.take_output())
            if not to_a and not to_b:
                return
            for piece in split(to_b):
                self.events_b += self.b.receive(piece, self.now)
            for piece in split(to_a):
                self.events_a += self.a.receive(piece, self.now)

    def take_events(self) -> tuple[list[Event], list[Event]]:
        """Return and forget what both sides reported."""
        events = self.events_a, self.events_b
        self.events_a, self.events_b = [], []
        return events
