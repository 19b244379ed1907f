"""Hosts: a service without tokens answers to addresses and to its own names, and to no page of another site."""

import pytest

from riverdelta.bento.hosts import Hosts
from riverdelta.core.errors import ConfigurationError, Forbidden

OWN = Hosts("scorer.internal,Shop_1.Example.")
ACCEPTED = (
    "localhost", "LOCALHOST:3000", "localhost.", "127.0.0.1", "127.0.0.1:3000", "10.0.0.7:1", "[::1]", "[::1]:3000",
    "[2001:DB8::7]:3000", "[::ffff:127.0.0.1]", "scorer.internal", "SCORER.internal.:3000", "shop_1.example:65535",
)  # fmt: skip
REFUSED = (
    "evil.example", "evil.example:3000", "127.0.0.1.evil.example", "localhost.evil.example", "xlocalhost", "evil.localhost",
    "scorer.internal.evil.example", "internal", "", ".", ":3000", "localhost:", "localhost:port", "localhost:3000:1", "[::1",
    "::1", "[::1]x", "[evil.example]", "127.1", "2130706433", "0x7f.0.0.1", "127.0.0.1:123456", "localhost@evil.example",
    "evil.example@localhost", "http://localhost", "localhost/", "localhost, evil.example", "localhost evil.example",
    " localhost", "localhost\t", "lоcalhost", "ｌocalhost", "localhost\x00", "%6cocalhost", "a" * 100_000, "null", "*",
)  # fmt: skip


@pytest.mark.parametrize("host", ACCEPTED)
def test_addresses_localhost_and_the_configured_names_are_accepted(host):
    OWN.check([host], [])


@pytest.mark.parametrize("host", REFUSED)
def test_any_other_host_is_refused_with_the_line_that_would_permit_it(host):
    with pytest.raises(Forbidden, match=r"set RIVERDELTA_HOSTS=\$RIVERDELTA_HOSTS,[a-z0-9._-]+$") as refused:
        OWN.check([host], [])
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"], ["evil.example", "localhost"]]
)
def test_a_request_names_one_host(hosts):
    with pytest.raises(Forbidden, match="expected one"):
        OWN.check(hosts, [])


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:9", "http://[::1]", "https://scorer.internal", "http://10.0.0.7:3000"]
)
def test_a_page_of_this_machine_or_of_the_same_host_may_send(origin):
    OWN.check(["10.0.0.7:3000"], [origin])


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://10.0.0.8:3000",
        "http://10.0.0.7:3001",
        "http://[",
        "http://localhost@evil.example",
    ],
)
def test_a_page_of_another_site_may_not(origin):
    with pytest.raises(Forbidden, match="comes from Origin"):
        OWN.check(["10.0.0.7:3000"], [origin])
    with pytest.raises(Forbidden):
        OWN.check(["10.0.0.7:3000"], ["http://localhost", origin])


def test_the_refusal_of_a_name_ends_with_its_line():
    with pytest.raises(Forbidden, match=r"set RIVERDELTA_HOSTS=evil\.example$"):
        Hosts().check(["Evil.example.:3000"], [])


@pytest.mark.parametrize("name", ["http://scorer", "a b", "*", "scorer/", "ä"])
def test_a_name_that_no_request_can_have_ends_the_start(name):
    with pytest.raises(ConfigurationError, match="RIVERDELTA_HOSTS has"):
        Hosts(f"localhost, {name}")
