"""Remote paths: what is one, and which partition its row belongs to.

A path is absolute, `/`-separated, NFC-normalised UTF-8 without NUL and without `.` or `..`. The root
is `/`; it has no row. The row of a path lies in the partition of its *parent*, so that a folder
is listed from one partition.
"""

import unicodedata

from protocol import limits
from protocol.errors import InvalidPath
from protocol.hashing import CONTEXT_PATH, derived_hash

ROOT = "/"


def normalise(path: str) -> str:
    """Return `path` in canonical form: NFC, one slash between components, none at the end.

    Raises: InvalidPath, naming the offending part.
    """
    if not path.startswith("/"):
        raise InvalidPath("a remote path begins with /", path[:80])
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidPath("a remote path is valid UTF-8", ascii(path)[:80]) from None
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part]
    for part in parts:
        if part in (".", ".."):
            raise InvalidPath("a remote path has no . or .. in it", part)
        if "\0" in part:
            raise InvalidPath("a remote path has no NUL in it", part[:80])
        if len(part.encode()) > limits.COMPONENT_BYTES_MAX:
            raise InvalidPath(f"a component has at most {limits.COMPONENT_BYTES_MAX} bytes", part[:80])
    result = "/" + "/".join(parts)
    if len(result.encode()) > limits.PATH_BYTES_MAX:
        raise InvalidPath(f"a remote path has at most {limits.PATH_BYTES_MAX} bytes", result[:80])
    return result


def is_canonical(path: str) -> bool:
    """Return whether `path` is a remote path in canonical form, as every path on the wire must be."""
    try:
        return normalise(path) == path
    except InvalidPath:
        return False


def parent_of(path: str) -> str:
    """Return the folder that contains `path` (canonical, not the root)."""
    assert path != ROOT
    return path[: path.rindex("/")] or ROOT


def name_of(path: str) -> str:
    """Return the last component of `path` (canonical, not the root)."""
    assert path != ROOT
    return path[path.rindex("/") + 1 :]


def join(parent: str, name: str) -> str:
    """Return the path of `name` in folder `parent`."""
    return f"/{name}" if parent == ROOT else f"{parent}/{name}"


def ancestors(path: str) -> list[str]:
    """Return the folders above `path`, outermost first, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]


def folder_partition(folder: str) -> int:
    """Return the partition that holds the rows of all entries of `folder`."""
    return int.from_bytes(derived_hash(CONTEXT_PATH, folder.encode(), 2), "big") >> (16 - limits.PART_POWER)


def row_partition(path: str) -> int:
    """Return the partition that holds the row of `path` (not the root)."""
    return folder_partition(parent_of(path))
