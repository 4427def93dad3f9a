"""Judge of what grows: every queue has a cap, and what is started comes to an end."""

from sims.oracles.base import Oracle

TASKS_MAX = 600
TIMERS_MAX = 600
BUFFER_BYTES_MAX = 24 * 1024 * 1024
QUIET_TASKS_MAX = 60
QUIET_TIMERS_MAX = 60
"""What a node of a small cluster has when nobody asks anything of it, twice."""


class Bounds(Oracle):
    """I26: no node has more tasks, timers or unsent bytes than its limits allow, and in peace it goes back to a few."""

    def tick(self) -> None:
        """Look at every process."""
        self._check(TASKS_MAX, TIMERS_MAX, "")

    async def finish(self) -> None:
        """Look again, when all is quiet."""
        self._check(QUIET_TASKS_MAX, QUIET_TIMERS_MAX, " though nobody asks anything of it")

    def _check(self, tasks_max: int, timers_max: int, when: str) -> None:
        loop = self.world.loop
        timers_of = loop.timers()
        for machine in self.world.machines.values():
            if not machine.is_up:
                continue
            tasks, timers = len(loop.unfinished(machine.host)), timers_of[machine.host]
            if tasks > tasks_max or timers > timers_max:
                raise self.violated("I26", f"{machine.host} has {tasks} tasks and {timers} timers{when}")
            buffered = self.world.lan.buffered(machine.host)
            if buffered > BUFFER_BYTES_MAX:
                raise self.violated("I26", f"{machine.host} keeps {buffered} bytes for one connection")
