"""One client cannot take all that a server has."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from oodream.core.options import ConfigError
from oodream.deploy.serving.clients import Clients, client_of
from oodream.deploy.serving.limits import Limits

HERE, ONE, OTHER = "127.0.0.1", "192.0.2.1", "192.0.2.2"


def request(address: str, length: str = "10") -> Request:
    headers = [(b"content-length", length.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers, "client": (address, 5000)})


def statuses(clients: Clients, *requests: Request) -> list[int]:
    """Of requests that are under way at once: 200, or the status of the refusal."""
    found = []
    with ExitStack() as stack:
        for one in requests:
            try:
                stack.enter_context(clients.admitted(one))
                found.append(200)
            except HTTPException as error:
                found.append(error.status_code)
    return found


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (ONE, ONE),
        (f"::ffff:{ONE}", ONE),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (HERE, ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("", ""),
        ("a-name", "a-name"),
    ],
)
def test_whom_an_address_belongs_to(address, client):
    assert client_of(address) == client


def test_requests_of_a_client_are_bounded_and_others_are_not_kept_out():
    clients = Clients(limits=Limits(max_client_requests=2))
    asked = [request(ONE), request(ONE), request(ONE), request(OTHER), request(OTHER), request(OTHER)]
    assert statuses(clients, *asked) == [200, 200, 429, 200, 200, 429]
    assert statuses(clients, *asked[:2]) == [200, 200]  # all had ended


def test_bytes_of_a_client_are_bounded_by_what_its_requests_state():
    clients = Clients(limits=Limits(max_client_held=3, max_megabytes=2))
    million = "1000000"
    asked = [request(ONE, million)] * 2 + [request(ONE, "1000001"), request(ONE, million), request(OTHER)]
    assert statuses(clients, *asked) == [200, 200, 429, 200, 200]


@pytest.mark.parametrize("length", ["9" * 30, "many", ""])
def test_a_length_that_is_refused_elsewhere_counts_as_no_more_than_there_may_be(length):
    clients = Clients(limits=Limits(max_client_held=3, max_megabytes=2))
    assert statuses(clients, request(ONE, length), request(ONE, "1000000")) == [200, 200]


def test_programs_of_this_machine_share_an_address_and_are_not_bounded_by_it():
    clients = Clients(limits=Limits(max_client_requests=1))
    assert statuses(clients, *[request(HERE)] * 9) == [200] * 9


def test_a_client_may_send_one_body_of_the_largest_size():
    with pytest.raises(ConfigError, match=r"max_client_held \(20\) must be at least max_megabytes \(32\)"):
        Limits(max_client_held=20)
