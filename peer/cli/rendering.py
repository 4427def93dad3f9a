"""Files and folders of the cluster as a user sees them: each as a JSON document, and as text."""

from peer.cli.text import mode_text, printable, size_text, time_text
from peer.files.entries import ChunkPlace, Entry, PutResult, Stat

SHORT_HASH_DIGITS = 16


def put_document(result: PutResult) -> dict[str, object]:
    """Return the JSON shape of a put."""
    return {"path": result.path, "version": result.version, "size": result.size, "copies": result.copies}


def put_text(result: PutResult) -> str:
    """Return a put as one line."""
    return f"{printable(result.path)}  version {result.version}  {size_text(result.size)}  copies={result.copies}"


def entry_document(entry: Entry) -> dict[str, object]:
    """Return the JSON shape of an entry of a folder; times are seconds since 1970, UTC."""
    return {
        "path": entry.path,
        "name": entry.name,
        "type": entry.type,
        "size": entry.size,
        "modified": entry.modified_milliseconds / 1000,
        "version": entry.version,
        "mode": entry.mode,
        "writer": entry.writer,
        "conflict": entry.conflict,
    }


def entry_text(entry: Entry, *, long: bool, whole_path: bool) -> str:
    """Return an entry as `ls` shows it; a folder ends in /."""
    name = printable(entry.path if whole_path else entry.name) + ("/" if entry.type == "dir" else "")
    if not long:
        return name
    size = size_text(entry.size) if entry.type == "file" else "-"
    return f"{mode_text(entry.mode, entry.type)}  {size:>10}  {time_text(entry.modified_milliseconds)}  {entry.version:<16}  {name}"


def stat_document(found: Stat) -> dict[str, object]:
    """Return the JSON shape of a stat."""
    conflicts = [entry_document(entry) for entry in found.conflicts]
    return {**entry_document(found.entry), "chunks": found.chunks, "copies": found.copies, "conflicts": conflicts}


def stat_text(found: Stat) -> str:
    """Return a stat as lines of `name: value`."""
    entry = found.entry
    rows = [
        ("path", entry.path),
        ("type", entry.type),
        ("size", f"{entry.size} ({size_text(entry.size)})"),
        ("mode", mode_text(entry.mode, entry.type)),
        ("modified", time_text(entry.modified_milliseconds)),
        ("version", entry.version),
        ("writer", entry.writer),
        ("chunks", str(found.chunks)),
        ("copies", str(found.copies)),
        *(("conflict", other.path) for other in found.conflicts),
    ]
    return "\n".join(f"{name + ':':<10}{printable(value)}" for name, value in rows)


def place_document(place: ChunkPlace) -> dict[str, object]:
    """Return the JSON shape of a chunk's place."""
    return {"index": place.index, "hash": place.chunk_id.hex(), "size": place.size, "nodes": list(place.nodes)}


def place_text(place: ChunkPlace) -> str:
    """Return a chunk's place as one line."""
    nodes = printable(" ".join(place.nodes)) or "nobody"
    return f"{place.index:>6}  {place.chunk_id.hex()[:SHORT_HASH_DIGITS]}  {size_text(place.size):>10}  {nodes}"
