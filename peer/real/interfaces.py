"""The addresses of this machine.

Virtual bridges and container interfaces are left out: nobody on the LAN can be reached through them, and their
addresses are the same on many machines.
"""

import ipaddress
from collections.abc import Sequence

import ifaddr

_VIRTUAL = ("docker", "veth", "br-", "virbr", "cni", "flannel")
LOOPBACK = "127.0.0.1"


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
