"""The examples of the client's guide and of the first page run, and the table of errors is right."""

import os
import re
from pathlib import Path

import peer

PACKAGE = Path(peer.__file__).parent
GUIDE = (PACKAGE / "client" / "README.md").read_text(encoding="utf-8")
FIRST_PAGE = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE + FIRST_PAGE, re.DOTALL | re.MULTILINE)


def test_the_examples_run_one_after_another(cluster, home: Path) -> None:
    Path("film.mp4").write_bytes(os.urandom(300_000))
    Path("cluster.key").write_text(cluster.key + "\n")
    assert len(EXAMPLES) == (GUIDE + FIRST_PAGE).count("```python") > 5
    names: dict[str, object] = {}
    for number, example in enumerate(EXAMPLES):
        for name, address in zip(("ada:7400", "ben:7400"), cluster.addresses, strict=False):
            example = example.replace(name, address)
        exec(compile(example, f"example {number + 1}", "exec"), names)
    assert Path("copy.mp4").read_bytes() == Path("film.mp4").read_bytes()
    with peer.connect() as client:
        assert client.get_bytes("/films/trailer.mp4") == Path("film.mp4").read_bytes()
        assert client.get_bytes("/table.csv") == b"name,size\r\nfilm.mp4,1024\r\n"
        assert client.get_bytes("/orders/17") == b"three"
        assert len(list(client.list("/many"))) == 10


def test_the_table_of_errors_has_every_public_class_with_its_exit_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", GUIDE, re.MULTILINE)
    public = [getattr(peer, name) for name in peer.__all__ if name not in ("Client", "connect")]
    assert {name: int(code) for name, code in rows} == {kind.__name__: kind.exit_code for kind in public}
