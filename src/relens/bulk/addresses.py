"""Which hosts may be fetched from, and which addresses may be connected to.

A name is resolved once, its addresses are checked, and the connection goes to the very address that was checked: a name
that points elsewhere a moment later (DNS rebinding) changes nothing. Private addresses are refused unless allowed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from relens.errors import BadInput

Resolve = Callable[[str, int], Sequence[str]]
"""Addresses of a host and port, as text, best first. `socket.gaierror` if there are none."""

# What Python calls global and no host on the internet has: protocol assignments, 6to4 anycast.
_ODD_V4 = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))
_UNICAST = IPv6Network("2000::/3")
_ODD_V6 = (IPv6Network("2001:db8::/32"), IPv6Network("3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Guard:
    """Hosts and addresses that may be fetched from: settings `fetch.allow_hosts` and `fetch.allow_private`."""

    allow_hosts: tuple[str, ...] = ()
    allow_private: bool = False

    def check_host(self, host: str) -> None:
        """BadInput `fetch.host-not-allowed` unless the host is listed, or nothing is."""
        if self.allow_hosts and not any(_matches(host, pattern) for pattern in self.allow_hosts):
            raise BadInput(
                "fetch.host-not-allowed",
                f"{host} is none of the hosts that may be fetched from",
                hint="add it to fetch.allow_hosts, as a name or as *.suffix",
            )

    def admit(self, host: str, addresses: Sequence[str]) -> list[str]:
        """The addresses of a host that may be connected to. BadInput `fetch.private-address` if there are none."""
        admitted = [address for address in addresses if self.allow_private or is_public(address)]
        if not admitted:
            raise BadInput(
                "fetch.private-address",
                f"{host} is {', '.join(addresses) or 'nowhere'}, which is no public address",
                hint="fetch.allow_private lets imports fetch from this machine and its network",
            )
        return admitted


def is_public(address: str) -> bool:
    """Whether an address is that of a host on the internet.

    False for loopback, link-local, private, shared, multicast, reserved and documentation addresses, and for IPv6
    addresses that lead to such an IPv4 address (mapped, NAT64, 6to4, Teredo). False for what is no address.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_public_v4(parsed) if isinstance(parsed, IPv4Address) else _is_public_v6(parsed)


def resolve(host: str, port: int) -> list[str]:
    """Ask the system. What it takes is bounded by `resolve_within`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def resolve_within(timeout_s: float, ask: Resolve, host: str, port: int) -> Sequence[str]:
    """The addresses of a host, asked in a thread that is left behind if it takes too long: TimeoutError."""
    answers: queue.SimpleQueue[Sequence[str] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask(host, port))
        except Exception as error:  # noqa: BLE001 - raised again where it was asked for
            answers.put(error)

    threading.Thread(target=run, name="resolve", daemon=True).start()
    with contextlib.suppress(queue.Empty):
        answer = answers.get(timeout=timeout_s)
        if isinstance(answer, BaseException):
            raise answer
        return answer
    raise TimeoutError(f"no name server answered within {timeout_s:g} s")


def _matches(host: str, pattern: str) -> bool:
    host, pattern = host.lower().rstrip("."), pattern.lower().rstrip(".")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _is_public_v4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in network for network in _ODD_V4)


def _is_public_v6(address: IPv6Address) -> bool:
    if address.ipv4_mapped is not None:
        return _is_public_v4(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public_v4(IPv4Address(int(address) & 0xFFFF_FFFF))
    if address not in _UNICAST or not address.is_global or any(address in network for network in _ODD_V6):
        return False
    return address.sixtofour is None or _is_public_v4(address.sixtofour)
