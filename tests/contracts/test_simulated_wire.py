"""What a simulated connection does beyond the contract: pieces of any size, cuts that stall, hosts that die."""

import asyncio
from random import Random

import pytest
from contract_sides import Accepting, Peer, run_on

from peer.errors import ConnectFailed
from protocol.hashing import plain_hash
from protocol.identity import node_id_of
from sims.loop import SimLoop
from sims.network import Lan, SimNetwork


class Noting(Peer):
    """Writes down how large the pieces were."""

    def __init__(self, proven):
        super().__init__(proven)
        self.sizes = []

    def buffer_updated(self, nbytes):
        self.sizes.append(nbytes)
        super().buffer_updated(nbytes)


async def connected(lan, here_kind=Peer):
    accepting = Accepting()
    ada, bob = (SimNetwork(lan, f"{name}#1", node_id_of(plain_hash(name.encode()))) for name in ("ada", "bob"))
    await ada.listen("ada:7400", accepting)
    here = await bob.connect("ada:7400", here_kind, timeout_seconds=1.0)
    return await accepting.peer(), here


def on_lans(story, seeds=20):
    results = []
    for seed in range(seeds):

        async def run(seed=seed):
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SimLoop)
            return await story(Lan(loop, Random(seed)))

        results.append(run_on("sim", run, seed=seed))
    return results


def test_small_writes_arrive_cut_and_joined():
    async def story(lan):
        there, here = await connected(lan, Noting)
        for _ in range(200):
            there.transport.write(b"x" * 100)
        await here.until_received(20_000)
        return here.sizes

    sizes = [size for sizes in on_lans(story) for size in sizes]
    assert any(size < 100 for size in sizes)
    assert any(size > 100 for size in sizes)


def test_a_reset_does_not_cross_a_cut():
    async def story(lan):
        there, here = await connected(lan)
        lan.cut("bob", "ada")
        here.transport.abort()
        await asyncio.sleep(1.0)
        assert here.lost
        assert not there.lost
        lan.heal()
        await there.until_lost()

    on_lans(story)


def test_bytes_do_not_cross_a_cut_and_arrive_when_it_heals():
    async def story(lan):
        there, here = await connected(lan)
        lan.cut("bob", "ada")
        here.transport.write(b"one way")
        there.transport.write(b"the other way")
        await here.until_received(13)
        assert not there.received
        lan.heal()
        assert await there.until_received(7) == b"one way"

    on_lans(story)


def test_whoever_was_closing_when_its_peer_died_comes_to_an_end():
    async def story(lan):
        _, here = await connected(lan)
        here.transport.write(bytes(1_000_000))
        here.transport.close()
        await asyncio.sleep(0.002)
        lan.loop.kill("ada#1")
        lan.crash("ada#1")
        await here.until_lost()

    on_lans(story)


def test_a_dead_host_resets_its_connections_and_frees_its_port():
    async def story(lan):
        _, here = await connected(lan)
        lan.loop.kill("ada#1")
        lan.crash("ada#1")
        await here.until_lost()
        again = SimNetwork(lan, "ada#2", node_id_of(plain_hash(b"ada")))
        await again.listen("ada:7400", Accepting())

    on_lans(story)


def test_the_death_of_a_host_is_not_heard_across_a_cut():
    async def story(lan):
        _, here = await connected(lan)
        lan.cut("ada", "bob")
        lan.loop.kill("ada#1")
        lan.crash("ada#1")
        await asyncio.sleep(1.0)
        assert not here.lost
        lan.heal()
        await here.until_lost()

    on_lans(story)


@pytest.mark.parametrize("cut", [("ada", "bob"), ("bob", "ada")])
def test_a_machine_that_has_forgotten_a_connection_does_not_say_so_across_a_cut(cut):
    async def story(lan):
        _, here = await connected(lan)
        lan.loop.kill("ada#1")
        lan.crash("ada#1", silent=True)
        lan.cut(*cut)
        lan.power_on("ada")
        here.transport.write(b"is anybody there?")
        await asyncio.sleep(1.0)
        assert not here.lost
        lan.heal()
        await here.until_lost()

    on_lans(story)


def test_a_host_listens_on_its_own_addresses_alone():
    async def story(lan):
        ada = SimNetwork(lan, "ada#1", node_id_of(plain_hash(b"ada")))
        with pytest.raises(ConnectFailed):
            await ada.listen("bob:7400", Accepting())
        listener = await ada.listen("0.0.0.0:7400", Accepting())
        assert listener.addresses == ("ada:7400",)

    on_lans(story, 1)
