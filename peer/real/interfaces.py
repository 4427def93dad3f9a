"""The addresses of this machine.

Virtual bridges and container interfaces are left out: nobody on the LAN can be reached through them, and their
addresses are the same on many machines.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ifaddr

_VIRTUAL = ("docker", "podman", "veth", "br-", "virbr", "lxcbr", "lxdbr", "incusbr", "vboxnet", "vmnet", "cni", "flannel")
"""How interfaces are named by which containers and guests of this machine are reached: no other machine is."""
LOOPBACK = "127.0.0.1"
_STATES = Path("/sys/class/net")
_LINKLESS = ("down", "lowerlayerdown", "notpresent")


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of this machine, and where it stands."""

    name: str
    address: str
    has_link: bool
    """Whether its cable or radio is connected, as far as the machine says."""


def lan_addresses() -> list[str]:
    """Return the IPv4 addresses under which other machines may reach this one; the loopback address if there is none."""
    found = []
    for adapter in ifaddr.get_adapters():
        if adapter.nice_name.startswith(_VIRTUAL):
            continue
        for address in adapter.ips:
            if isinstance(address.ip, str) and not ipaddress.ip_address(address.ip).is_loopback:
                found.append(address.ip)
    return sorted(found) or [LOOPBACK]


def unknown_interfaces(choice: Sequence[str]) -> list[str]:
    """Return what of `choice` is neither an interface of this machine nor an address of one."""
    known = {name for adapter in ifaddr.get_adapters() for name in (adapter.nice_name, *(address.ip for address in adapter.ips))}
    return [name for name in choice if name not in known]


def chosen_addresses(choice: Sequence[str]) -> list[str]:
    """Return the addresses for a choice of interface names and addresses; without a choice those of the LAN and the loopback.

    A chosen interface that has no address (yet) contributes none.
    """
    if not choice:
        return sorted({*lan_addresses(), LOOPBACK})
    found = set()
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            if isinstance(address.ip, str) and (address.ip in choice or adapter.nice_name in choice):
                found.add(address.ip)
    return sorted(found)


def interfaces_of(addresses: Sequence[str]) -> list[Interface]:
    """Return the interfaces that have these addresses, in the order of the addresses."""
    names = {str(address.ip): adapter.nice_name for adapter in ifaddr.get_adapters() for address in adapter.ips}
    return [Interface(names[address], address, _has_link(names[address])) for address in addresses if address in names]


def _has_link(name: str) -> bool:
    try:
        return (_STATES / name / "operstate").read_text(encoding="ascii").strip() not in _LINKLESS
    except OSError:  # no Linux, or an alias: nothing is known
        return True
