"""The tables of protocol/README.md say what the code does: they are built from it.

`python tests/protocol/test_specification.py --write` rewrites them after a change of messages, errors or limits.
"""

import ast
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from peer.real import keys
from protocol import connection, errors, fields, hashing, layout, limits, manifest, messages, versions
from protocol.fields import Binary, Entries, Items, Text, Unsigned
from protocol.messages import MESSAGES, Answer, Carrier, Control, Message, Request

SPECIFICATION = Path(__file__).parents[2] / "protocol" / "README.md"
VECTORS = Path(__file__).parents[1] / "data" / "wire"

ENUMS: tuple[type[IntEnum], ...] = (
    messages.LinkKind, messages.Role, messages.Verdict, messages.MemberState, versions.Kind, manifest.ChunkTag,
)  # fmt: skip
VALUES: tuple[type[Any], ...] = (
    messages.PeerInfo,
    messages.PeerStatus,
    messages.Ballot,
    versions.Dot,
    versions.Version,
    manifest.Content,
    versions.Operation,
    versions.Row,
    layout.Member,
    layout.Former,
    layout.LayoutRecord,
    messages.MemberClaim,
)
ALIASES: tuple[tuple[ModuleType, str], ...] = (
    (fields, "ClusterIdField"),
    (fields, "DeadlineMilliseconds"),
    (fields, "OptionalDigest"),
    (fields, "PartitionBitmap"),
    (messages, "BucketBitmap"),
    (messages, "LayoutBytes"),
    (messages, "MemberClaims"),
    (messages, "NameBound"),
    (messages, "RowMark"),
    (versions, "Vector"),
)
"""Types that say what their fields mean."""
CONSTANTS: tuple[tuple[ModuleType, str], ...] = (
    (connection, "WAITING_SECONDS"),
    (connection, "IDLE_SECONDS"),
    (connection, "KEEPALIVE_SECONDS"),
    (connection, "CREDIT_BATCH_BYTES"),
    (layout, "REPLICATION"),
    (layout, "WEIGHT_MAX"),
)


# -- what the source says ----------------------------------------------------


def attribute_texts(body: list[ast.stmt]) -> dict[str, str]:
    """Return the docstrings that stand behind assignments."""
    texts = {}
    for statement, following in pairwise(body):
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
        if isinstance(target, ast.Name) and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[target.id] = one_line(str(following.value.value))
    return texts


def texts_of_class(cls: type[Any]) -> dict[str, str]:
    """Return what the class says of its fields."""
    module = sys.modules[cls.__module__]
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.ClassDef) and statement.name == cls.__name__:
            return attribute_texts(statement.body)
    raise LookupError(cls)


def texts_of_module(module: ModuleType) -> dict[str, str]:
    """Return what the module says of its constants and aliases."""
    return attribute_texts(ast.parse(inspect.getsource(module)).body)


def text_of_alias(hint: Any) -> str:
    """Return what is said of the alias by which a field is annotated."""
    for module, name in ALIASES:
        if getattr(module, name) == hint:
            return texts_of_module(module)[name]
    return ""


def one_line(text: str) -> str:
    """Return text as it fits a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def wire_type(hint: Any) -> str:
    """Return how a field is written, with its bound."""
    bound = None
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        bound = bound if bound is not None else notes[0]
    match bound:
        case Unsigned(bits, None):
            return f"u{bits}"
        case Unsigned(bits, maximum):
            return f"u{bits} ≤ {maximum}"
        case Binary(minimum, maximum, or_empty):
            return ("bin 0 or " if or_empty else "bin ") + (f"{minimum}" if minimum == maximum else f"{minimum}..{maximum}")
        case Text(maximum):
            return f"str ≤ {maximum}"
        case Items(maximum):
            return f"[{wire_type(get_args(hint)[0])}] ≤ {maximum}"
        case Entries(maximum, key_bytes, value_bytes):
            return f"{{str ≤ {key_bytes}: bin ≤ {value_bytes}}} ≤ {maximum}"
    return str(hint.__name__)


def field_names(cls: type[Any]) -> list[str]:
    """Return the fields of a class in order."""
    return list(cls._fields) if issubclass(cls, tuple) else [field.name for field in dataclasses.fields(cls)]


def fields_of(cls: type[Any], told: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, wire type and meaning of each field in order. What is said of a type is said once (`told`)."""
    texts = texts_of_class(cls)
    hints = get_type_hints(cls, include_extras=True)
    for name in field_names(cls):
        text = texts.get(name) or text_of_alias(hints[name])
        yield name, wire_type(hints[name]), "" if text in told else text
        told.add(text)


# -- the tables --------------------------------------------------------------


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") for row in rows]
    return "\n".join(lines)


def field_table(classes: tuple[type[Any], ...]) -> str:
    """Return the fields of all classes, in one table."""
    rows = []
    told = {"Empty while the node belongs to no cluster, else 16 bytes."} if classes is VALUES else set()
    for cls in classes:
        for position, (name, kind, text) in enumerate(fields_of(cls, told)):
            rows.append((f"**{cls.__name__}**" if position == 0 else "", f"`{name}`", kind, text))
    return table(("", "field", "type", "meaning"), rows)


def class_of(cls: type[Message]) -> str:
    return "control" if issubclass(cls, Control) else "answer" if issubclass(cls, Answer) else "request"


def messages_tables() -> str:
    """Return who says what, and in which fields."""
    links = {Carrier.EITHER: "either", Carrier.CTL: "ctl", Carrier.BULK: "bulk"}
    rows = []
    for cls in sorted(MESSAGES, key=lambda cls: cls.TYPE):
        answer = f"`{cls.ANSWER.__name__}`" if issubclass(cls, Request) else ""
        payload = "yes" if cls.PAYLOAD else ""
        text = one_line(str(cls.__doc__))
        rows.append((str(cls.TYPE), f"**{cls.__name__}**", class_of(cls), links[cls.CARRIER], payload, answer, text))
    head = ("", "message", "class", "link", "payload", "answer", "meaning")
    with_fields = tuple(sorted((cls for cls in MESSAGES if field_names(cls)), key=lambda cls: cls.TYPE))
    return f"{table(head, rows)}\n\nTheir fields, in the order of the header:\n\n{field_table(with_fields)}"


def values_tables() -> str:
    """Return the nested values and the enumerations."""
    numbers = [
        (f"**{enum.__name__}**", ", ".join(f"{int(member)} {member.name}" for member in enum), one_line(str(enum.__doc__)))
        for enum in ENUMS
    ]
    return f"{field_table(VALUES)}\n\n{table(('', 'numbers', 'meaning'), numbers)}"


def errors_tables() -> str:
    """Return all codes."""
    close_texts, error_texts = texts_of_class(errors.CloseCode), texts_of_class(errors.ErrorCode)
    closes = [(str(int(code)), f"`{code.name}`", close_texts[code.name]) for code in errors.CloseCode]
    failures = [
        (str(int(code)), f"`{code.name}`", "yes" if code.retry_helps else "no", error_texts[code.name])
        for code in errors.ErrorCode
    ]
    return (
        f"Close codes:\n\n{table(('', 'code', 'meaning'), closes)}\n\n"
        f"Error codes, of `Failure`:\n\n{table(('', 'code', 'retry helps', 'meaning'), failures)}"
    )


def limits_table() -> str:
    """Return every bound."""
    texts = texts_of_module(limits)
    rows = [(f"`{name}`", number(value), texts.get(name, "")) for name, value in vars(limits).items() if name.isupper()]
    for module, name in CONSTANTS:
        rows.append((f"`{name}`", number(getattr(module, name)), texts_of_module(module).get(name, "")))
    return table(("limit", "value", "meaning"), rows)


def number(value: float) -> str:
    return f"{value:,}"


BLOCKS: dict[str, Callable[[], str]] = {
    "messages": messages_tables,
    "values": values_tables,
    "errors": errors_tables,
    "limits": limits_table,
}


def block_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def rewritten(text: str) -> str:
    """Return the specification with all tables as the code has them now."""
    for name, build in BLOCKS.items():
        text, count = block_pattern(name).subn(lambda match, build=build: f"{match[1]}{build()}\n{match[3]}", text)
        assert count == 1, f"the specification has no place for {name}"
    return text


@pytest.mark.parametrize("name", BLOCKS)
def test_the_tables_of_the_specification_are_those_of_the_code(name):
    found = block_pattern(name).search(SPECIFICATION.read_text(encoding="utf-8"))
    assert found is not None
    assert found[2].strip() == BLOCKS[name](), "run: python tests/protocol/test_specification.py --write"


def test_every_hash_context_stands_in_the_specification():
    text = SPECIFICATION.read_text(encoding="utf-8")
    contexts = [value for name, value in vars(hashing).items() if name.startswith("CONTEXT_")]
    for context in [*contexts, keys._CONTEXT_CHECKSUM]:
        assert f'"{context}"' in text


def certificate_of(name: str, values: dict[str, str]) -> str:
    """Return a certificate (DER, hexadecimal) as the specification spells it out."""
    found = block_pattern(name).search(SPECIFICATION.read_text(encoding="utf-8"))
    assert found is not None
    lines = [line.strip() for line in found[2].strip().splitlines() if not line.startswith("```")]
    template = "".join(re.split(r"\s{2,}", line)[0] for line in lines).replace(" ", "")
    for placeholder, value in values.items():
        template = template.replace(f"{{{placeholder}}}", value)
    return template


@pytest.mark.parametrize("example", json.loads((VECTORS / "security.json").read_text())["keys"], ids=lambda example: example["tag"])
def test_certificates_are_as_the_specification_spells_them_out(example: dict[str, str]) -> None:
    authority, node = example["ca_certificate"], example["node_certificate"]
    key = authority[authority.index("032100") + 6 :][:64]
    assert certificate_of("authority", {"key": key, "signature": authority[-128:]}) == authority
    values = {"serial": node[node.index("0208") + 4 :][:16], "id": example["node_id"].encode().hex(), "key": example["node_public_key"]}
    assert certificate_of("node", {**values, "signature": node[-128:]}) == node


def test_every_message_and_nested_value_says_what_it_means():
    for cls in (*MESSAGES, *VALUES):
        assert cls.__doc__


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: test_specification.py --write")
    SPECIFICATION.write_text(rewritten(SPECIFICATION.read_text(encoding="utf-8")), encoding="utf-8")
