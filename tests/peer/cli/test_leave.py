"""`shoal leave` beside real nodes: what it says, how it ends, and what is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from test_up import environment, shoal, up  # it lies beside this one

from peer.real.keys import new_key


def chunks_in(home: Path) -> list[Path]:
    return [path for path in (home / "data" / "c").rglob("*") if path.is_file()]


def test_one_of_two_leaves_and_exits_0_with_nothing_left(tmp_path: Path) -> None:
    ada, ben = tmp_path / "ada", tmp_path / "ben"
    key = new_key().text
    content = tmp_path / "content"
    content.write_bytes(os.urandom(3_000_000))
    with up(ada, "--found", "--name", "ada", SHOAL_KEY=key) as first:
        address, _ = first.ready()
        with up(ben, "--join", address, "--name", "ben", SHOAL_KEY=key) as second:
            second.ready()
            for home in (ada, ben):
                (home / "cluster.key").write_text(key + "\n")
            assert shoal(ben, "put", str(content), "/f").returncode == 0
            assert chunks_in(ben)
            refused = shoal(ada, "leave", "--node", address)
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
            left = shoal(ben, "leave", "--json")
            assert left.returncode == 0, left.stderr
            assert [json.loads(line)["event"] for line in left.stdout.splitlines()][-1] == "left"
            code, err = second.ends()
            assert code == 0, err
        assert not chunks_in(ben)
        assert shoal(ada, "get", "/f", str(tmp_path / "back")).returncode == 0
        assert (tmp_path / "back").read_bytes() == content.read_bytes()
        alone = shoal(ada, "leave")
        assert (alone.returncode, alone.stderr.count("\n")) == (4, 1)
        assert "only member" in alone.stderr
        nobody = shoal(ben, "leave")
        assert nobody.returncode == 4
        assert "no node" in nobody.stderr


def test_ctrl_c_ends_the_command_and_not_the_leaving(tmp_path: Path) -> None:
    ada, ben = tmp_path / "ada", tmp_path / "ben"
    key = new_key().text
    with up(ada, "--found", "--name", "ada", SHOAL_KEY=key) as first:
        address, _ = first.ready()
        with up(ben, "--join", address, "--name", "ben", SHOAL_KEY=key) as second:
            second.ready()
            (ben / "cluster.key").write_text(key + "\n")
            command = [sys.executable, "-m", "peer.cli", "--home", str(ben), "leave"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as leaving:
                assert leaving.stderr is not None
                assert leaving.stderr.readline().startswith("leaving: ")
                leaving.send_signal(signal.SIGINT)
                assert "goes on leaving" in leaving.stderr.read()
                assert leaving.wait() == 130
            code, err = second.ends()
            assert code == 0, err
