"""A way to run `shoal` with a client that keeps its files in memory."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from peer.cli.main import main
from peer.cli.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))

from cli_fakes import FakeClient  # it lies beside the tests, which are no package


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that every verb gets."""
    fake = FakeClient()

    @asynccontextmanager
    async def client_of(settings: Settings) -> AsyncIterator[FakeClient]:
        yield fake

    for module in ("file_verbs", "tree_verbs", "status", "member_verbs"):
        monkeypatch.setattr(f"peer.cli.{module}.client_of", client_of)
    return fake


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which commands use without being told."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SHOAL_HOME", str(folder))
    monkeypatch.delenv("SHOAL_KEY", raising=False)
    return folder


Shoal = Callable[..., Result]


@pytest.fixture
def shoal(home: Path) -> Shoal:
    """Runs a command line; what is written to descriptors, not streams, is for `capfd`."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments))

    return run
