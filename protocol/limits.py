"""Every bound of the protocol, in one place.

A peer's word for a length is only ever compared with these, before memory is taken.
Units are in the names. Nothing here is configurable: two machines must agree on it.
"""

# -- one frame ---------------------------------------------------------------
FRAME_PREFIX_BYTES = 11
"""0x94, then two five-byte unsigned integers: header length and payload length."""
PAYLOAD_PREFIX_BYTES = 5
"""0xc6 and a four-byte length, in front of a payload that is not empty."""
CTL_FRAME_BYTES_MAX = 512 * 1024
"""A whole frame of a ctl link. Small, so that a probe never waits long behind it."""
BULK_FRAME_BYTES_MAX = 8 * 1024 * 1024
"""A whole frame of a bulk link: the largest chunk (4 MiB) twice over."""
BULK_HEADER_BYTES_MAX = 4 * 1024
"""The header of a bulk frame: hashes and numbers, never data."""

# -- one link ----------------------------------------------------------------
REQUESTS_IN_FLIGHT_MAX = 64
"""Requests that one side of a link may have open at once."""
PAYLOAD_CREDIT_BYTES = 16 * 1024 * 1024
"""Payload bytes that one side may have sent and the other not yet released."""
HANDSHAKE_SECONDS = 5.0
"""From accepted connection to proven identity, and again to the peer's hello."""
HALF_OPEN_MAX = 32
HALF_OPEN_PER_ADDRESS_MAX = 16
FRAME_SECONDS = 30.0
"""From the first byte of a frame to its last, at either end: who is slower would hold memory for as long as it pleases."""
PINGS_PER_SECOND_MAX = 16
"""A side needs one a second at most. Each costs the other an answer, and no window bounds them."""
DEADLINE_MILLISECONDS_MAX = 600_000
"""The longest deadline a request may carry."""

# -- one node ----------------------------------------------------------------
PAYLOAD_MEMORY_BYTES_MAX = 64 * 1024 * 1024
"""Payload bytes of requests held at once by a node, over all its links."""
MEMBERS_MAX = 128
"""Fully meshed members of one cluster."""
VOTERS_MAX = 7
"""Members that agree on the next layout: any three of seven may be away."""
FORMERS_MAX = 16
"""Clusters that a cluster which began by force remembers to have come from."""

# -- names and rows ----------------------------------------------------------
PATH_BYTES_MAX = 4096
COMPONENT_BYTES_MAX = 255
NAME_BYTES_MAX = 64
"""A node's or a zone's name."""
REASON_BYTES_MAX = 512
ADDRESS_BYTES_MAX = 64
ADDRESSES_MAX = 16
ROW_BYTES_MAX = 256 * 1024
HEADS_MAX = 64
"""Concurrent versions of one row."""
OPERATIONS_MAX = 64
"""Operations that a row remembers beyond those of its heads, so that a late retry is recognised."""
DOTS_PER_OPERATION_MAX = 64
VECTOR_ENTRIES_MAX = 256
OPTIONAL_ENTRIES_MAX = 32

# -- content -----------------------------------------------------------------
INLINE_BYTES_MAX = 4 * 1024
"""Content up to this size lies in the row itself."""
INLINE_CHUNKS_MAX = 64
"""A chunk list up to this length lies in the row itself; a longer one in a tree of manifest blobs."""
MANIFEST_FANOUT = 4096
"""Addresses in one manifest blob (132 KiB)."""
MANIFEST_DEPTH_MAX = 2
CHUNK_BYTES_MAX = 4 * 1024 * 1024

# -- batches -----------------------------------------------------------------
CHUNKS_PER_REQUEST_MAX = 1024
PAGE_BYTES_MAX = 384 * 1024
"""A page of rows stays under this, so that with its envelope it fits a ctl frame: one row more may exceed it by ROW_BYTES_MAX
only when it stands alone."""
ROWS_PER_MESSAGE_MAX = 1000
DIGEST_BUCKETS = 64
"""Parts of a partition whose digests are compared, by the first bits of the hash of the path."""
MARKS_MAX = 4096
"""Rows that one side looks at for one `RowsCompare`."""
CHUNKS_LISTED_MAX = 4096
"""Chunks in one answer to `ChunksList`: 170 KiB."""
LAYOUT_BYTES_MAX = 400 * 1024
PART_POWER = 12
PARTITIONS = 1 << PART_POWER
REPLICAS_MAX = 9
"""Columns of the partition table: M = 2R-1 with R up to 5."""

# -- membership --------------------------------------------------------------
CLAIMS_PER_MESSAGE_MAX = 64
"""News of members in one message: 3 KiB."""
MEMBERS_KNOWN_MAX = 4096
"""Members that a node remembers, the dead of the last three days included: all of them fit one frame."""
