"""What a person may set for one node, and every parameter that is no limit of the protocol.

Durations are in seconds. Limits that two machines must agree about live in `protocol.limits`.
"""

from dataclasses import dataclass

DIAL_TIMEOUT_SECONDS = 2.0
"""One attempt to connect, TLS and hello included."""
DIAL_BACKOFF_FIRST_SECONDS = 0.2
DIAL_BACKOFF_LAST_SECONDS = 5.0
"""Pause between attempts to reach a member: doubles from first to last, with jitter."""
RECENT_REFUSAL_SECONDS = 5.0
"""For so long a failed dial counts as the direct try that a short write needs (decision 6)."""
GENESIS_LISTEN_SECONDS = 2.0
"""How long a node with a given key listens for an initialised one before the lowest uninitialised one founds."""
ADMIT_QUICK_SECONDS = 1.0
"""How long a newcomer must stay before the layout names it, while fewer than R nodes are members or nothing is stored."""
ADMIT_SECONDS = 30.0
"""The same otherwise: moving data is slow, so it is batched."""
ABORT_JOINT_SECONDS = 3.0
"""A joint layout is taken back when the new owners of a partition have had no live majority for so long: it is out of use meanwhile."""
COMPLETE_WITHOUT_SECONDS = 30.0
"""A joint layout completes with a majority of W synced once the missing owners were away for so long."""
COMPLETE_ANYHOW_SECONDS = 300.0
"""The same after so long even if they are there: who cannot reach the machines to sync from must not keep others out."""
EVICT_SECONDS = 600.0
"""Who has been held dead for so long is left out of the layout, and his copies are made elsewhere."""
SWEEP_SECONDS = 60.0
"""Pause between two sweeps over the chunks; a layout change starts one at once, and one that has moved anything the next one soon."""
RECONCILE_SECONDS = 10.0
"""Pause between two comparisons of rows with another replica; a link that comes up or another layout starts one at once."""
BACKGROUND_BYTES_PER_SECOND = 40_000_000
"""A third of what gigabit Ethernet carries: a member of 1 TB that is gone for good is made up for by nine others within the hour."""
ADDRESSES_SECONDS = 5.0
"""How often a node looks whether its machine has got another address."""
EXPLORE_SECONDS = 5.0
"""How often remembered peers and typed addresses are tried while this node belongs to no cluster or misses members."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node, as its owner set it up."""

    name: str
    listen: str = "0.0.0.0:7400"
    """`HOST:PORT`; port 0 takes any."""
    zone: str = ""
    join: tuple[str, ...] = ()
    """Addresses to try besides discovered and remembered ones."""
    found: bool = False
    """Found a cluster if this node was never a member of one."""
    capacity_bytes: int = 0
    """What the node offers; its weight follows from it. 0: what the disk has."""
    evict_seconds: float = EVICT_SECONDS
    """For how long a member has to be held dead until this node, if it votes, wants it left out."""
    background_bytes_per_second: int = BACKGROUND_BYTES_PER_SECOND
    """Bound of what this node fetches to hold it, and of what it gives to others for the same: in any second, each way."""
