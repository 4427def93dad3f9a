"""The files that a home keeps: the cluster's key, and where the node of this home listens.

    cluster.key   one line of text, mode 0600
    node.json     address and process of the running node, for the commands beside it
    data/         the node's own (peer.real.storage)
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from peer.errors import AlreadyThere, NoSuchPath, NotAllowed, ShoalError, WrongUsage
from peer.real.keys import ClusterKey, new_key, parse_key

KEY_FILE = "cluster.key"
NODE_FILE = "node.json"
DATA_FOLDER = "data"
KEY_VARIABLE = "SHOAL_KEY"
HOME_VARIABLE = "SHOAL_HOME"
KEY_FILE_BYTES_MAX = 4096
ADDRESSES_READ_MAX = 64


@dataclass(frozen=True, slots=True)
class ChosenKey:
    """The key of this invocation."""

    key: ClusterKey
    is_new: bool
    """Made a moment ago: nobody else can hold it, so its node founds the cluster."""


def default_home() -> Path:
    """Return the folder of key, node address and data where nothing else is said."""
    return Path(os.environ.get(HOME_VARIABLE, "") or platformdirs.user_data_dir("shoal", appauthor=False))


def read_key(path: Path) -> str:
    """Return the text of a key file.

    Raises: NoSuchPath, WrongUsage, ShoalError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(KEY_FILE_BYTES_MAX)
    except FileNotFoundError:
        raise NoSuchPath(f"{path}: there is no such key file") from None
    except OSError as error:
        raise ShoalError(f"{path}: the key cannot be read: {error.strerror}") from None
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise WrongUsage(f"{path} is not a key of shoal: a key is one line of text") from None


def write_key(path: Path, text: str) -> None:
    """Store a key so that only its owner can read it.

    Raises: AlreadyThere, ShoalError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        if not path.parent.is_dir():
            raise WrongUsage(f"{path.parent} is no folder: choose another --home") from None
        raise AlreadyThere(f"{path} holds a key already: `shoal key show` prints it") from None
    except OSError as error:
        raise ShoalError(f"{path}: the key cannot be written: {error.strerror}") from None


def key_text(home: Path) -> str | None:
    """Return the key of this machine: from the environment, else from the home; None when there is neither."""
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if text:
        return text
    try:
        return read_key(home / KEY_FILE)
    except NoSuchPath:
        return None


def parsed(text: str, origin: str) -> ClusterKey:
    """Return the key that `text` stands for.

    Raises: WrongUsage, naming where the text came from but never the text.
    """
    try:
        return parse_key(text)
    except ValueError as error:
        raise WrongUsage(f"{origin} is not a key of shoal: {error}") from None


def key_for_client(home: Path) -> ClusterKey:
    """Return the key with which a command proves itself.

    Raises: NotAllowed when there is none, WrongUsage.
    """
    text = key_text(home)
    if text is None:
        raise NotAllowed(
            f"there is no key in {home}: run `shoal up` to begin a cluster, "
            f"or put the key of yours there as {KEY_FILE} or into {KEY_VARIABLE}"
        )
    return parsed(text, key_origin(home))


def key_for_node(home: Path, key_file: Path | None) -> ChosenKey:
    """Return the key of the node of this home; one from `key_file` is kept in the home, and without any a new one is made.

    A new key is not written here: a node that cannot start must not leave a key behind that looks like a given one.

    Raises: WrongUsage when `key_file` differs from the key that the home has.
    """
    path = home / KEY_FILE
    if key_file is not None:
        text = read_key(key_file)
        key = parsed(text, str(key_file))
        if not path.exists():
            write_key(path, text)
        elif read_key(path) != text:
            raise WrongUsage(f"{home} belongs to the cluster of another key than {key_file}: give this node another --home")
        return ChosenKey(key, is_new=False)
    known = key_text(home)
    if known is not None:
        return ChosenKey(parsed(known, key_origin(home)), is_new=False)
    return ChosenKey(new_key(), is_new=True)


def write_node_file(home: Path, *, name: str, node_id: str, addresses: tuple[str, ...]) -> None:
    """Say where the node of this home listens."""
    document = {"address": addresses[0], "addresses": list(addresses), "pid": os.getpid(), "name": name, "id": node_id}
    temporary = home / f"{NODE_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
    temporary.replace(home / NODE_FILE)


def remove_node_file(home: Path) -> None:
    """Take back what `write_node_file` said."""
    with contextlib.suppress(FileNotFoundError):
        (home / NODE_FILE).unlink()


def node_addresses(home: Path) -> tuple[str, ...]:
    """Return where the node of this home says it listens; empty when none runs. A node that was killed leaves its file behind."""
    addresses = _node_file(home).get("addresses")
    if not isinstance(addresses, list):
        return ()
    return tuple(address for address in addresses if isinstance(address, str))[:ADDRESSES_READ_MAX]


def node_identifier(home: Path) -> str:
    """Return who the node of this home says it is, in hexadecimal digits; empty when none runs."""
    identifier = _node_file(home).get("id")
    return identifier if isinstance(identifier, str) else ""


def _node_file(home: Path) -> dict[str, object]:
    try:
        document = json.loads((home / NODE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def key_origin(home: Path) -> str:
    """Return where `key_text` has the key from."""
    return KEY_VARIABLE if os.environ.get(KEY_VARIABLE, "").strip() else str(home / KEY_FILE)
