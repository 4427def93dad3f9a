"""Values as canonical msgpack, and back: strict, bounded, typed.

Owns the mapping from annotated dataclasses to bytes. It is driven by the annotations alone (`protocol.fields`): each
class is compiled once into a writer and a checker. Knows no message by name, except that it looks types up by number and
asks `_FAULTS` what, beyond types and bounds, no correct node would send.

Decoding: the bytes are unpacked with every limit of msgpack set; the structure is checked and built; and the structure is
packed again and compared with the bytes, which proves the encoding canonical (shortest integers and lengths, ordered map keys) in one step.
"""

import dataclasses
from collections.abc import Callable
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

import msgpack  # type: ignore[import-untyped]

from protocol import limits
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.fields import Binary, Entries, Items, Text, Unsigned
from protocol.hashing import Buffer
from protocol.manifest import content_fault
from protocol.messages import BY_TYPE, Cancel, Control, ListFetch, Message, PartitionPull, RowFetch, RowMerge, RowPublish, RowsCompare
from protocol.paths import ROOT, is_canonical, row_partition
from protocol.versions import Kind, Row, row_fault, vector_is_canonical

T = TypeVar("T")
Writer = Callable[[Any], Any]
Reader = Callable[[Any], Any]

_REQUEST_ID_MAX: Final = (1 << 32) - 1


class _Fault(Exception):
    """What is wrong with a structure; becomes a RemoteProtocolError at the surface."""


def encode(value: object) -> bytes:
    """Return the canonical encoding of an annotated dataclass: the msgpack array of its fields."""
    write, _, _ = _compiled(type(value))
    return _pack(write(value))


def decode(cls: type[T], data: Buffer) -> T:
    """Return the `cls` that `data` encodes.

    Raises: RemoteProtocolError for anything but the canonical encoding of a valid value.
    """
    _, read, _ = _compiled(cls)
    try:
        return cast(T, read(_unpack(data)))
    except _Fault as fault:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"{cls.__name__}: {fault}") from None


def decode_own(cls: type[T], data: Buffer) -> T:
    """Return the `cls` that `data` encodes, where a checksum proves that this implementation encoded it: only types and bounds are checked.

    Raises: RemoteProtocolError.
    """
    _, _, build = _compiled(cls)
    try:
        return cast(T, build(_structure(data)))
    except _Fault as fault:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"{cls.__name__}: {fault}") from None


def encode_header(message: Message, request_id: int) -> bytes:
    """Return the header of a frame: `[type, request_id, *fields]`."""
    write, _, _ = _compiled(type(message))
    return _pack([message.TYPE, request_id, *write(message)])


def decode_header(data: Buffer) -> tuple[Message, int]:
    """Return the message of a header and its request id.

    Raises: RemoteProtocolError for anything but the canonical header of a valid message.
    """
    structure = _unpack(data)
    if type(structure) is not list or len(structure) < 2:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a header is an array of type, request id and fields")
    number, request_id = structure[0], structure[1]
    cls = BY_TYPE.get(number) if type(number) is int else None
    if cls is None:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"unknown message type {str(number)[:40]}")
    if type(request_id) is not int or not 0 <= request_id <= _REQUEST_ID_MAX:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"{cls.__name__}: the request id is no u32")
    if (request_id == 0) != (issubclass(cls, Control) and cls is not Cancel):
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"{cls.__name__} with request id {request_id}")
    _, read, _ = _compiled(cls)
    try:
        return cast(Message, read(structure[2:])), request_id
    except _Fault as fault:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"{cls.__name__}: {fault}") from None


def _pack(structure: object) -> bytes:
    return cast(bytes, msgpack.packb(structure, use_bin_type=True))


def _unpack(data: Buffer) -> Any:
    structure = _structure(data)
    try:
        canonical = _pack(structure)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _not_msgpack(error) from None
    if canonical != data:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "the encoding is not canonical")
    return structure


def _structure(data: Buffer) -> Any:
    size = len(data)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=limits.OPTIONAL_ENTRIES_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.OutOfData, msgpack.BufferFull) as error:
        raise _not_msgpack(error) from None


def _not_msgpack(error: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"not msgpack: {str(error)[:120]}")


_COMPILED: dict[type[Any], tuple[Writer, Reader, Reader]] = {}


def _compiled(cls: type[Any]) -> tuple[Writer, Reader, Reader]:
    """Return for a class with annotated fields its writer, its reader, and a reader that does not ask `_FAULTS`; made once."""
    made = _COMPILED.get(cls)
    if made is None:
        made = _COMPILED[cls] = _make(cls)
    return made


def _make(cls: type[Any]) -> tuple[Writer, Reader, Reader]:
    hints = get_type_hints(cls, include_extras=True)
    names = list(cls._fields) if issubclass(cls, tuple) else [field.name for field in dataclasses.fields(cls)]  # type: ignore[attr-defined]
    pairs = [_compile(hints[name]) for name in names]
    writers = [write for write, _ in pairs]
    takes = [read for _, read in pairs]
    fault_of = _FAULTS.get(cls)

    fields_of: Callable[[Any], Any] = attrgetter(*names) if len(names) > 1 else lambda value: [getattr(value, name) for name in names]
    conversions = [(index, put) for index, put in enumerate(writers) if put is not _same]

    def write(value: Any) -> list[Any]:
        structure = list(fields_of(value))
        for index, put in conversions:
            structure[index] = put(structure[index])
        return structure

    def build(structure: Any) -> Any:
        if type(structure) is not list or len(structure) != len(names):
            raise _Fault(f"{cls.__name__} is an array of {len(names)} fields")
        try:
            return cls(*[take(item) for take, item in zip(takes, structure, strict=True)])
        except _Fault:
            raise _named(names, takes, structure) from None

    if fault_of is None:
        return write, build, build

    def read(structure: Any) -> Any:
        value = build(structure)
        fault = fault_of(value)
        if fault is not None:
            raise _Fault(fault)
        return value

    return write, read, build


def _named(names: list[str], takes: list[Reader], structure: list[Any]) -> _Fault:
    """Return the fault of the first field that has one, with its name: found anew, so that the fields of what is right are read quickly."""
    for name, take, item in zip(names, takes, structure, strict=True):
        try:
            take(item)
        except _Fault as fault:
            return _Fault(f"{name}: {fault}")
    raise AssertionError("no field has a fault")


def _same(value: Any) -> Any:
    return value


def _compile(hint: Any) -> tuple[Writer, Reader]:
    bound = None
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        bound = bound if bound is not None else notes[0]
    if bound is None:
        return _compile_plain(hint)
    if isinstance(bound, Unsigned):
        return _same, _unsigned_reader(bound.largest)
    if isinstance(bound, Binary):
        return _same, _binary_reader(bound)
    if isinstance(bound, Text):
        return _same, _text_reader(bound.maximum)
    if isinstance(bound, Items):
        return _compile_items(get_args(hint)[0], bound.maximum)
    if isinstance(bound, Entries):
        return _write_entries, _entries_reader(bound)
    raise TypeError(f"no wire form for {hint}")


def _compile_plain(hint: Any) -> tuple[Writer, Reader]:
    if hint is bool:
        return _same, _read_flag
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return int, _enum_reader(hint)
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")):
        write, read, _ = _compiled(hint)
        return write, read
    raise TypeError(f"no wire form for {hint}")


def _compile_items(item: Any, maximum: int) -> tuple[Writer, Reader]:
    put, take = _compile(item)

    def read(structure: Any) -> Any:
        if type(structure) is not list:
            raise _Fault("not an array")
        if len(structure) > maximum:
            raise _Fault(f"more than {maximum} items")
        return tuple([take(each) for each in structure])

    if put is _same:
        return list, read
    return lambda values: [put(each) for each in values], read


def _unsigned_reader(largest: int) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not int:
            raise _Fault("not an integer")
        if not 0 <= value <= largest:
            raise _Fault(f"not from 0 to {largest}")
        return value

    return read


def _binary_reader(bound: Binary) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not bytes:
            raise _Fault("not binary")
        if not (bound.minimum <= len(value) <= bound.maximum or (bound.or_empty and not value)):
            raise _Fault(f"{len(value)} bytes, not {bound.minimum} to {bound.maximum}")
        return value

    return read


def _text_reader(maximum: int) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not str:
            raise _Fault("not a string")
        if len(value) > maximum or len(value.encode()) > maximum:
            raise _Fault(f"more than {maximum} bytes of text")
        return value

    return read


def _enum_reader(enum: type[IntEnum]) -> Reader:
    members = {int(member): member for member in enum}

    def read(value: Any) -> Any:
        member = members.get(value) if type(value) is int else None
        if member is None:
            raise _Fault(f"no {enum.__name__}")
        return member

    return read


def _read_flag(value: Any) -> Any:
    if type(value) is not bool:
        raise _Fault("not a boolean")
    return value


def _write_entries(value: Any) -> Any:
    return {key: value[key] for key in sorted(value, key=str.encode)}


def _entries_reader(bound: Entries) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _Fault("not a map")
        if len(value) > bound.maximum:
            raise _Fault(f"more than {bound.maximum} entries")
        previous: bytes | None = None
        for key, item in value.items():
            if type(key) is not str or type(item) is not bytes:
                raise _Fault("a map has strings as keys and binary as values")
            order = key.encode()
            if len(order) > bound.key_bytes_max or len(item) > bound.value_bytes_max:
                raise _Fault("an entry is too long")
            if previous is not None and order <= previous:
                raise _Fault("map keys are not in ascending order")
            previous = order
        return value

    return read


def _row_of(path: str, partition: int) -> str | None:
    if path == ROOT or not is_canonical(path):
        return "the path is not canonical"
    return None if row_partition(path) == partition else "the path lies in another partition"


def _publish_fault(message: RowPublish) -> str | None:
    fault = _row_of(message.path, message.partition)
    if fault is None and not vector_is_canonical(message.context):
        fault = "the context is not in ascending order of actor"
    if fault is None and message.kind is not Kind.FILE and message.size:
        fault = "only a file has a size"
    return fault if fault is not None else content_fault(message.content, message.size)


def _merge_fault(message: RowMerge) -> str | None:
    for row in message.rows:
        if row_partition(row.path) != message.partition:
            return "a row lies in another partition"
    return None


def _fetch_fault(message: RowFetch) -> str | None:
    return _row_of(message.path, message.partition)


def _list_fault(message: ListFetch) -> str | None:
    return None if is_canonical(message.folder) else "the folder is not canonical"


def _pull_fault(message: PartitionPull) -> str | None:
    if not message.after_path:
        return None if message.after_partition == 0 else "a cursor has a partition and a path"
    return _row_of(message.after_path, message.after_partition)


def _compare_fault(message: RowsCompare) -> str | None:
    bounds = (bound for bound in (message.after, message.until) if bound)
    return next((fault for bound in bounds if (fault := _row_of(bound, message.partition)) is not None), None)


_FAULTS: Final[dict[type[Any], Callable[[Any], str | None]]] = {
    Row: row_fault,
    RowPublish: _publish_fault,
    RowMerge: _merge_fault,
    RowFetch: _fetch_fault,
    ListFetch: _list_fault,
    PartitionPull: _pull_fault,
    RowsCompare: _compare_fault,
}
"""What, beyond types and bounds, no correct node would send."""
