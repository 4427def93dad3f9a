"""Judge of who is held to be there: of the advice that nothing depends on but time."""

import asyncio

from protocol.messages import MemberState
from sims.oracles.base import Oracle

AGREEMENT_SECONDS = 10.0
"""From the recovery on, before which everybody had half a minute already: more than the longest suspicion takes."""
ALIVE = (MemberState.ALIVE, MemberState.DRAINING)
DEAD = (MemberState.DEAD, MemberState.LEFT)


class MembersAreSeen(Oracle):
    """I22: once everything is mended everybody holds who runs to be alive and who is gone to be dead, and nobody errs from then on."""

    _is_quiet = False

    async def look(self) -> None:
        """Wait until nobody errs."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + AGREEMENT_SECONDS
        while (error := self._error()) is not None:
            if loop.time() >= give_up_at:
                raise self.violated("I22", error)
            await asyncio.sleep(0.5)
        self._is_quiet = True

    def tick(self) -> None:
        """Look again, once it is quiet: nobody who runs has anything to be held dead for."""
        if self._is_quiet and (error := self._error()) is not None:
            raise self.violated("I22", f"{error}, though nothing happens")

    def _error(self) -> str | None:
        nodes = {machine.name: machine.node for machine in self.world.machines.values() if machine.node is not None}
        running = {name: node for name, node in nodes.items() if node.detector.state(node.node_id) in ALIVE}  # not who is just about to go
        ids = {name: node.node_id for name, node in running.items()}
        for name, node in running.items():
            for other, node_id in ids.items():
                if node.detector.state(node_id) not in ALIVE:
                    return f"{name} holds {other}, which runs, to be {node.detector.state(node_id).name}"
            for view in node.detector.members():
                if view.node_id not in ids.values() and view.state not in DEAD:
                    return f"{name} holds somebody who does not run to be {view.state.name}"
        return None
