"""What clients of a simulated cluster do: whole contents in, whole contents out.

Owns the glue between bytes and the streams of `peer.client.Client`. Random workloads with a recorded history come later.
"""

from typing import Any

from peer.client import Client, PutResult


async def put_bytes(client: Client, path: str, data: bytes) -> PutResult:
    """Put `data` as the file `path`.

    Raises: what `Client.put` raises.
    """
    position = 0

    async def read(count: int) -> bytes:
        nonlocal position
        piece = data[position : position + count]
        position += len(piece)
        return piece

    return await client.put(path, read, size=len(data))


async def get_bytes(client: Client, path: str) -> bytes:
    """Return the content of the file `path`.

    Raises: what `Client.get` raises.
    """
    parts = bytearray()

    async def write(data: Any) -> None:
        parts.extend(data)

    await client.get(path, write)
    return bytes(parts)
