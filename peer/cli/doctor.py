"""The verb `doctor`: why machines do not find or do not admit each other, rung by rung.

A rung is a pure function from what was looked at (`peer.cli.doctor_facts`) to a finding. Each judges only what the rungs below it have
left standing, so that one fault is one failed rung: what cannot be judged for that is skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

import click
from rich.text import Text

from peer.cli.doctor_facts import Facts, Question, Step, Visit, look
from peer.cli.node_verbs import DEFAULT_HOST, DEFAULT_PORT
from peer.cli.output import Output
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import count_text, printable
from peer.cli.world import finish
from peer.client.home_files import KEY_FILE
from peer.client.reach import DISCOVERY_SECONDS, checked_address
from peer.errors import NotAllowed, ShoalError, WrongUsage
from peer.real.interfaces import LOOPBACK, unknown_interfaces
from peer.real.multicast import GROUP, PORT
from peer.real.network import split_address
from protocol import succession
from protocol.identity import short
from protocol.layout import Former

CLOCK_SECONDS_MAX: Final = 60.0
"""A clock that is off by more is worth a word."""
CLOCK_SECONDS_SHOWN_MAX: Final = 10_000 * 365 * 86_400
NAMED_MAX: Final = 5
NAME_AN_ADDRESS: Final = f"shoal up --join ADDRESS:{DEFAULT_PORT}"
TAKE_THE_KEY: Final = f"copy {KEY_FILE} from a machine of the cluster, then: shoal up --key-file {KEY_FILE}"
CHANGE_THE_KEY: Final = f"copy {KEY_FILE} from the cluster that is meant, then in an empty home: shoal up --home DIR --key-file {KEY_FILE}"


class State(StrEnum):
    """How a rung is."""

    OK = "ok"
    WARNING = "warning"
    """Worth knowing; keeps no machines apart."""
    FAILED = "failed"
    SKIPPED = "skipped"


STYLES: Final = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red", State.SKIPPED: "dim"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rung has found, and what to do about it."""

    state: State
    found: str
    advice: str = ""


@click.command(
    cls=Verb,
    short_help="Say why machines do not find each other.",
    examples=(
        "shoal doctor",
        "shoal doctor --join 192.168.1.5:7400    # is a node there, and of this key?",
        "shoal doctor --json | jq .failed",
    ),
)
@click.option("--join", multiple=True, metavar="HOST:PORT", help="Also look for a node at this address. Repeatable.")
@click.option("--listen", default="", metavar="HOST:PORT", help="Where the node shall listen, if not where it would by itself.")
@click.option("--discover-on", multiple=True, metavar="IFACE|IP", help="Look at these interfaces only. Repeatable.")
@pass_settings
def doctor(settings: Settings, join: tuple[str, ...], listen: str, discover_on: tuple[str, ...]) -> None:
    """Say why machines do not find each other, or do not join.

    Walks up what has to work, from the interfaces to the clocks, and says at each rung that fails what to do. Works beside a node,
    before there is one, and without a key. Exit 0 if no rung fails, 8 if the first that does is the key, else 1.
    """
    unknown = unknown_interfaces(discover_on)
    if unknown:
        raise WrongUsage(f"--discover-on {unknown[0]}: this machine has no such interface or address")
    question = Question(
        home=settings.home,
        given=tuple(checked_address(address, "--join") for address in join) + ((settings.node,) if settings.node else ()),
        interfaces=discover_on,
        listen=checked_address(listen, "--listen") if listen else f"{DEFAULT_HOST}:{DEFAULT_PORT}",
        any_port=not listen,
    )
    finish(examine(Output(settings), question))


async def examine(output: Output, question: Question) -> int:
    """Look, say what is found, and return the exit code."""
    output.note(f"listening for {DISCOVERY_SECONDS:.0f} s ...")
    facts = await look(question)
    findings = {name: judge(facts) for name, judge in LADDER}
    failed = [name for name, finding in findings.items() if finding.state is State.FAILED]
    if output.is_json:
        output.result({"failed": failed, "rungs": [document(name, finding) for name, finding in findings.items()]}, "")
    else:
        for name, finding in findings.items():
            output.print(view(name, finding))
    if not failed:
        return 0
    return NotAllowed.exit_code if failed[0] == KEY_RUNG else ShoalError.exit_code


def document(name: str, finding: Finding) -> dict[str, object]:
    """Return the JSON shape of a rung."""
    return {"rung": name, "state": finding.state.value, "found": finding.found, "advice": finding.advice}


def view(name: str, finding: Finding) -> Text:
    """Return a rung as one line, and a second one where there is something to do."""
    line = Text.assemble(f"{name:<15}", (f"{finding.state:<9}", STYLES[finding.state]), printable(finding.found))
    if finding.advice:
        line.append(f"\n{'':<15}{'':<9}{printable(finding.advice)}", style="bold")
    return line


# -- the rungs -----------------------------------------------------------------


def interfaces(facts: Facts) -> Finding:
    """Has this machine an address at which others can reach it?"""
    if not facts.interfaces:
        return Finding(State.FAILED, "the chosen interfaces have no IPv4 address", "give one an address: `ip address` shows what there is")
    found = ", ".join(f"{each.name} {each.address}" + ("" if each.has_link else " (not connected)") for each in facts.interfaces)
    if not any(each.has_link for each in facts.interfaces):
        return Finding(State.FAILED, found, "plug in the cable, or connect to the wireless network")
    if not facts.question.interfaces and all(each.address == LOOPBACK for each in facts.interfaces):
        advice = "connect this machine to the network of the others: `ip address` shows what there is"
        return Finding(State.FAILED, "no address but that of the loopback interface", advice)
    return Finding(State.OK, found)


def multicast_out(facts: Facts) -> Finding:
    """Does what this machine and its node announce leave it?"""
    if interfaces(facts).state is State.FAILED:
        return Finding(State.SKIPPED, "there is no network to send anything to")
    faults = [f"{interface.name}: {echo.fault}" for interface, echo in zip(facts.interfaces, facts.echoes, strict=True) if echo.fault]
    if faults:
        advice = f"let UDP to {GROUP} port {PORT} out of this machine's firewall, or name a node: {NAME_AN_ADDRESS}"
        return Finding(State.FAILED, "a question could not be sent on " + listed(faults), advice)
    if facts.own is not None and facts.own.hello is not None and not facts.own_is_heard and all(echo.heard for echo in facts.echoes):
        advice = f"start it without --no-discovery and --discover-on, or name it to the others: shoal up --join {facts.own.address}"
        return Finding(State.FAILED, "a question was sent; the node of this home announces nothing", advice)
    announced = ", and the node of this home is announced" if facts.own_is_heard else ""
    return Finding(State.OK, "a question was sent on " + listed([each.name for each in facts.interfaces]) + announced)


def multicast_in(facts: Facts) -> Finding:
    """Does this machine hear itself, and others?"""
    if interfaces(facts).state is State.FAILED:
        return Finding(State.SKIPPED, "there is no network to hear anything from")
    asked = list(zip(facts.interfaces, facts.echoes, strict=True))
    deaf = [interface.name for interface, echo in asked if not echo.fault and not echo.heard]
    if deaf:
        advice = f"let UDP port {PORT} into this machine through its firewall, or name a node: {NAME_AN_ADDRESS}"
        return Finding(State.FAILED, f"this machine does not hear itself on {listed(deaf)}", advice)
    if not facts.heard and all(echo.fault for echo in facts.echoes):
        return Finding(State.SKIPPED, "nothing was sent that could be answered")
    if not facts.heard:
        reached = [each for each in facts.visits if each.reached > Step.PORT]
        if reached:
            found = f"no other node is heard, though {listed([each.called for each in reached])} can be reached"
            advice = f"the network keeps multicast back: name a node instead, one is enough: shoal up --join {reached[0].address}"
            return Finding(State.FAILED, found, advice)
        advice = f"if a node runs on another machine, the network keeps multicast back: {NAME_AN_ADDRESS}, with the address of that machine"
        return Finding(State.FAILED, "this machine hears itself and no other node", advice)
    return Finding(State.OK, f"{count_text(len(facts.heard), 'other node')} heard: {keys_text(facts)}")


def port(facts: Facts) -> Finding:
    """Does the node of this home listen, or could it, and do the others?"""
    silent = [each for each in facts.visits if each.reached is Step.PORT]
    others = f"{len(facts.visits) - len(silent)} of {count_text(len(facts.visits), 'other node')} can be reached" if facts.visits else ""
    if facts.port is not None and facts.port.fault:
        return Finding(State.FAILED, f"{facts.port.address}: {facts.port.fault}", "name another address: shoal up --listen HOST:PORT")
    if silent:
        advice = f"start the node there, or let its TCP port into that machine through its firewall ({silent[0].address})"
        return Finding(State.FAILED, listed([f"{each.address}: {each.fault}" for each in silent]), advice)
    if facts.port is None:
        assert facts.own is not None
        return Finding(State.OK, joined(f"the node of this home listens at {facts.own.address}", others))
    here = "no node of this home runs" + (", the last one was killed" if facts.own is not None else "")
    asked, free = split_address(facts.question.listen)[1], split_address(facts.port.address)[1]
    if facts.question.any_port and free != asked:
        found = joined(here, f"port {asked} is taken, it would listen at {free}", others)
        return Finding(State.WARNING, found, f"others who name this machine have to say so: --join {facts.port.address}")
    return Finding(State.OK, joined(here, f"port {free} is free", others))


def tls(facts: Facts) -> Finding:
    """Do the nodes that listen speak TLS as this one does?"""
    tried, failed = at_step(facts, Step.TLS)
    if failed:
        advice = "something else listens there, or a node that stands still: check the address, or start that node again"
        return Finding(State.FAILED, listed([f"{each.address}: {each.fault}" for each in failed]), advice)
    if not tried:
        return Finding(State.SKIPPED, "there is no node to try it with")
    return Finding(State.OK, f"TLS 1.3 with {nodes_text(facts, tried)}")


def key(facts: Facts) -> Finding:
    """Have the nodes that are there the key of this home?"""
    if facts.key is None:
        there = f"; {count_text(len(facts.heard), 'node')} heard" if facts.heard else ""
        return Finding(State.FAILED, f"there is no key in {facts.question.home}{there}", TAKE_THE_KEY)
    tried, refused = at_step(facts, Step.KEY)
    if refused:
        return Finding(State.FAILED, f"another key: {listed([each.address for each in refused])}", CHANGE_THE_KEY)
    if facts.heard and not facts.visits:
        found = f"no other node has the key of this home, {listed([each.addresses[0] for each in facts.heard])} has another"
        return Finding(State.FAILED, found, CHANGE_THE_KEY)
    if not tried:
        return Finding(State.SKIPPED, "there is no node to compare it with")
    return Finding(State.OK, f"the same as that of {nodes_text(facts, tried)}")


def versions(facts: Facts) -> Finding:
    """Is there a version of the protocol that all speak?"""
    tried, failed = at_step(facts, Step.HELLO)
    if failed:
        advice = "install the same version of shoal on all machines; a node that says nothing at all has to be started again"
        return Finding(State.FAILED, listed([f"{each.address}: {each.fault}" for each in failed]), advice)
    if not tried:
        return Finding(State.SKIPPED, "there is no node to compare with")
    spoken = sorted({each.hello.version_highest for each in tried if each.hello is not None})
    return Finding(State.OK, f"version {listed([str(version) for version in spoken])} of the protocol")


def cluster(facts: Facts) -> Finding:
    """Are the nodes of this key one cluster?"""
    members: dict[bytes, list[Visit]] = {}
    for each in all_visits(facts):
        if each.hello is not None:
            members.setdefault(each.hello.cluster_id, []).append(each)
    waiting = members.pop(b"", [])
    clusters = sorted(members, key=lambda cluster_id: (-len(members[cluster_id]), cluster_id))
    said = "; ".join(facts.notices)
    if len(clusters) > 1:
        found = "; ".join(f"cluster {short(each)}: {listed([visit.called for visit in members[each]])}" for each in clusters)
        return Finding(State.FAILED, found, said or advice_on(members))
    if not clusters and waiting:
        found = f"in none yet: {listed([each.called for each in waiting])}"
        return Finding(State.WARNING, found, said or "they found one within seconds of hearing each other; a single one does with --found")
    if not clusters:
        return Finding(State.SKIPPED, "there is no node of this key")
    if said and facts.own not in waiting:
        found = f"{short(clusters[0])}: {listed([each.called for each in members[clusters[0]]])}; the node of this home has met another one"
        return Finding(State.FAILED, found, said)
    still = f"; not in it yet: {listed([each.called for each in waiting])}" if waiting else ""
    return Finding(State.OK, f"{short(clusters[0])}: {listed([each.called for each in members[clusters[0]]])}{still}")


def clock(facts: Facts) -> Finding:
    """Does it show the same time everywhere? Nothing is ordered by clocks, so this never fails."""
    known = [(each, each.clock_ahead_seconds) for each in all_visits(facts) if each.clock_ahead_seconds is not None]
    wrong = [f"{each.called} is {offset_text(ahead)}" for each, ahead in known if abs(ahead) > CLOCK_SECONDS_MAX]
    if wrong:
        advice = "only the times that are shown are wrong for it: let the machines set their clocks (NTP)"
        return Finding(State.WARNING, listed(wrong), advice)
    if not known:
        return Finding(State.SKIPPED, "there is no node to compare it with")
    return Finding(State.OK, f"within a minute of {nodes_text(facts, [each for each, _ in known])}")


KEY_RUNG: Final = "key"
LADDER: Final[tuple[tuple[str, Callable[[Facts], Finding]], ...]] = (
    ("interfaces", interfaces),
    ("multicast out", multicast_out),
    ("multicast in", multicast_in),
    ("port", port),
    ("TLS", tls),
    (KEY_RUNG, key),
    ("versions", versions),
    ("cluster", cluster),
    ("clock", clock),
)


# -- inside ----------------------------------------------------------------------


def past_of(visits: Sequence[Visit]) -> list[Former]:
    """Return which clusters the one of these visits goes on from by force."""
    return [former for visit in visits if visit.hello is not None for former in succession.heard(visit.hello.optional).former]


def advice_on(members: Mapping[bytes, Sequence[Visit]]) -> str:
    """Return what to do about several clusters of one key, where no node of this home says it."""
    left = [former.cluster_id for visits in members.values() for former in past_of(visits) if former.cluster_id in members]
    if not left:
        return "clusters of one key never merge: take the machines of one of them out, and begin them anew in an empty --home"
    return (
        f"{short(left[0])} has gone on by force: to let its machines in as new ones stop them, remove `identity` from their data folders "
        "and start them again: they keep their chunks"
    )


def all_visits(facts: Facts) -> list[Visit]:
    """Return the visits to the node of this home and to the others."""
    return [*([facts.own] if facts.own is not None else []), *facts.visits]


def at_step(facts: Facts, step: Step) -> tuple[list[Visit], list[Visit]]:
    """Return the visits that came as far as `step`, and which of them failed at it."""
    tried = [each for each in all_visits(facts) if each.reached >= step]
    return tried, [each for each in tried if each.reached is step]


def nodes_text(facts: Facts, visits: Sequence[Visit]) -> str:
    """Return how many nodes these are, the one of this home apart."""
    others = sum(each is not facts.own for each in visits)
    own = ["the node of this home"] if others < len(visits) else []
    return " and ".join([*own, *([count_text(others, "other node")] if others else [])])


def keys_text(facts: Facts) -> str:
    """Return how many of the nodes that are heard have the key of this home."""
    if facts.key is None:
        return "this home has no key to compare"
    same = sum(each.tag == facts.key.tag for each in facts.heard)
    return f"{same} of this key, {len(facts.heard) - same} of another"


def offset_text(ahead_seconds: float) -> str:
    """Return how far a clock is off; a peer may say anything."""
    off = timedelta(seconds=round(min(abs(ahead_seconds), CLOCK_SECONDS_SHOWN_MAX)))
    return f"{off} {'ahead' if ahead_seconds > 0 else 'behind'}"


def listed(parts: Sequence[str]) -> str:
    """Return the parts one after the other, the last ones as a number where there are many."""
    more = [f"{len(parts) - NAMED_MAX} more"] if len(parts) > NAMED_MAX else []
    return ", ".join([*parts[:NAMED_MAX], *more])


def joined(*parts: str) -> str:
    """Return those parts that say something, as one."""
    return "; ".join(part for part in parts if part)
