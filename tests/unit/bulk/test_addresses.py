"""Addresses: public ones are told from all others, and hosts are allowed by name or suffix."""

import ipaddress
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.bulk.addresses import Guard, is_public, resolve, resolve_within
from relens.errors import BadInput

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = [
    *["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"],
    *["192.0.0.8", "192.0.2.1", "198.18.0.1", "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"],
    *["::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "ff0e::1"],
    *["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1"],
    *["2002:7f00:1::", "2002:a00:1::", "2001:0:1::1", "2001:db8::1", "3fff::1", "5f00::1", "no address", ""],
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_any_other_address_is_not(address):
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_judged_as_that_other(address):
    number = int(address)
    wrapped = [(0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)]
    for within in wrapped:
        assert is_public(str(ipaddress.IPv6Address(within))) == is_public(str(address))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_never_public(address):
    if not address.is_global and getattr(address, "ipv4_mapped", None) is None:
        assert not is_public(str(address))


def test_of_several_addresses_only_the_public_ones_are_admitted():
    assert Guard().admit("a.test", ["10.0.0.1", "8.8.8.8", "::1"]) == ["8.8.8.8"]
    assert Guard(allow_private=True).admit("a.test", ["10.0.0.1"]) == ["10.0.0.1"]


@pytest.mark.parametrize("addresses", [["10.0.0.1", "::1"], []])
def test_a_host_without_a_public_address_is_refused_by_name(addresses):
    with pytest.raises(BadInput, match=r"a\.test") as caught:
        Guard().admit("a.test", addresses)
    assert caught.value.code == "fetch.private-address"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("shop.test", True),
        ("SHOP.test.", True),
        ("img.cdn.test", True),
        ("a.b.cdn.test", True),
        ("cdn.test", False),
        ("evilcdn.test", False),
        ("shop.test.evil.test", False),
        ("xshop.test", False),
    ],
)
def test_hosts_are_allowed_by_name_or_by_suffix(host, allowed):
    guard = Guard(allow_hosts=("shop.test", "*.cdn.test"))
    if allowed:
        guard.check_host(host)
        return
    with pytest.raises(BadInput) as caught:
        guard.check_host(host)
    assert caught.value.code == "fetch.host-not-allowed"


def test_without_a_list_every_host_is_allowed():
    Guard().check_host("anywhere.test")


@pytest.mark.parametrize("spelt", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
def test_old_spellings_of_an_address_are_resolved_before_they_are_checked(spelt):
    assert not any(is_public(address) for address in resolve(spelt, 80))


def test_a_name_server_that_is_silent_is_not_waited_for_longer_than_told():
    over = threading.Event()
    with pytest.raises(TimeoutError):
        resolve_within(0.05, lambda _host, _port: [str(over.wait(5))], "a.test", 80)
    over.set()


def test_what_a_name_server_says_is_passed_on():
    def fail(_host, _port):
        raise socket.gaierror(socket.EAI_NONAME, "no")

    with pytest.raises(socket.gaierror):
        resolve_within(5.0, fail, "a.test", 80)
    assert resolve_within(5.0, lambda host, port: [f"{host} {port}"], "a.test", 80) == ["a.test 80"]
