"""A server in a process of its own: slow and hostile clients hold nobody up, and a stop loses nothing."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from selectors import EVENT_READ, BaseSelector, DefaultSelector

import pytest

from oodream.cli.main import main
from oodream.deploy.serving.server import is_loopback
from tests.helpers.guarded import guard
from tests.helpers.serving import FORM, ask, encoded, form, garment, server

FILES = [(f"{i}.png", encoded(garment(i))) for i in range(3)]
BODY = form(*FILES)
SECONDS = 3.0  # the read timeout of the server below
CONNECTIONS = 40
LIMITS = ("--read-timeout", str(SECONDS), "--max-connections", str(CONNECTIONS))
LIMITS += ("--max-megabytes", "1", "--max-held", "3")
PER_CLIENT = 4
LIMITS += ("--max-client-requests", str(PER_CLIENT), "--proxies", "127.0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "guard"
    guard().save(folder)
    return folder


@pytest.fixture(scope="module")
def running(folder):
    with server(folder, *LIMITS) as running:
        yield running


def connected(port: int, sent: bytes, address: str = "127.0.0.1") -> socket.socket:
    """A connection from an address, on which this was sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
    connection.sendall(sent)
    return connection


def head(length: int | None, *lines: str) -> bytes:
    stated = () if length is None else (f"Content-Length: {length}",)
    return "\r\n".join(
        ["POST /predict HTTP/1.1", "Host: localhost", "Content-Type: image/png", *stated, *lines, "", ""]
    ).encode()


def said(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def said_first(selector: BaseSelector, n: int) -> list[bytes]:
    """The statuses of the n connections that are answered first; they are closed."""
    statuses: list[bytes] = []
    while len(statuses) < n:
        answered = selector.select(20)
        assert answered, "no connection is answered"
        for key, _ in answered[: n - len(statuses)]:
            connection = selector.unregister(key.fileobj).fileobj
            statuses.append(said(connection)[9:12])
    return statuses


def assert_answers(port: int) -> None:
    began = time.monotonic()
    status, content = ask(port, "/predict", BODY, FORM)
    assert (status, time.monotonic() - began < SECONDS / 2) == (200, True)
    assert [one["file"] for one in json.loads(content)["predictions"]] == [name for name, _ in FILES]


# Clients


def test_it_says_what_it_guarantees_and_answers_as_the_guard(running):
    assert running.said == f"oodream: {guard().guarantee}\n"
    predictions = json.loads(ask(running.port, "/predict?alpha=0.1", BODY, FORM)[1])["predictions"]
    expected = guard().at(0.1).predict([content for _, content in FILES])
    assert [one["score"] for one in predictions] == pytest.approx([one.score for one in expected], abs=1e-5)
    assert [one["answer"] for one in predictions] == [one.answer for one in expected]


@pytest.mark.parametrize(
    "sent",
    [b"", head(1000)[:-2], head(1000) + b"x" * 10],
    ids=["nothing", "most of a head", "some of a body"],
)
def test_slow_clients_hold_nobody_up_and_are_seen_off(running, sent):
    with ExitStack() as stack:
        began = time.monotonic()
        slow = [stack.enter_context(closing(connected(running.port, sent))) for _ in range(CONNECTIONS - 5)]
        assert_answers(running.port)
        answers = {said(connection).partition(b"\r\n")[0] for connection in slow}
        assert SECONDS / 2 < time.monotonic() - began < 3 * SECONDS
    assert answers == {b"HTTP/1.1 408 Request Timeout" if head(1000) in sent else b""}


def test_a_client_that_trickles_is_seen_off_all_the_same(running):
    with closing(connected(running.port, head(1000))) as connection:
        began = time.monotonic()

        def trickle() -> None:
            while time.monotonic() - began < 4 * SECONDS:
                connection.sendall(b"x")
                time.sleep(0.05)

        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            trickle()
        assert time.monotonic() - began < 3 * SECONDS


def test_where_connections_are_too_many_the_slowest_gives_way(running):
    """Several times as many as there may be do not keep others out."""
    with ExitStack() as stack:
        slow = [
            stack.enter_context(closing(connected(running.port, head(1000)))) for _ in range(3 * CONNECTIONS)
        ]
        assert_answers(running.port)
        began = time.monotonic()
        assert said(slow[0]) == b""
        assert time.monotonic() - began < SECONDS / 2


def test_where_bodies_are_too_large_together_the_slowest_gives_way(running):
    with ExitStack() as stack:
        sent = head(1_000_000) + bytes(900_000)
        slow = [stack.enter_context(closing(connected(running.port, sent))) for _ in range(6)]
        assert_answers(running.port)
        statuses = [said(connection)[9:12] for connection in slow]
    assert statuses.count(b"503") >= 3
    assert set(statuses) == {b"503", b"408"}


def test_a_client_with_too_many_requests_is_told_so_and_others_are_answered(running):
    """Which of its requests the server takes is the server's choice: they come at the same time."""
    with ExitStack() as stack, DefaultSelector() as selector:
        sent = head(1000, "X-Forwarded-For: 192.0.2.1")
        for _ in range(3 * PER_CLIENT):
            connection = stack.enter_context(closing(connected(running.port, sent)))
            selector.register(connection, EVENT_READ)
        assert said_first(selector, 2 * PER_CLIENT) == [b"429"] * (2 * PER_CLIENT)
        other = FORM | {"X-Forwarded-For": "192.0.2.2"}
        assert ask(running.port, "/predict", BODY, other)[0] == 200
        assert said_first(selector, PER_CLIENT) == [b"408"] * PER_CLIENT
    assert ask(running.port, "/predict", BODY, FORM | {"X-Forwarded-For": "192.0.2.1"})[0] == 200


def test_who_is_no_proxy_cannot_say_who_the_client_is(folder):
    with server(folder, "--max-client-requests", "1") as running, ExitStack() as stack:
        sent = head(1000, "X-Forwarded-For: 192.0.2.1")
        for _ in range(3):
            stack.enter_context(closing(connected(running.port, sent)))
        assert ask(running.port, "/predict", BODY, FORM | {"X-Forwarded-For": "192.0.2.1"})[0] == 200


def test_where_connections_are_too_many_the_client_with_the_most_gives_way(running):
    """However many another opens, an idle connection that is older than all of them stays."""
    idle = http.client.HTTPConnection("127.0.0.1", running.port, 20, ("127.0.0.3", 0))
    with ExitStack() as stack:
        stack.enter_context(closing(idle))
        for _ in range(2):
            idle.request("POST", "/predict", BODY, FORM)
            assert idle.getresponse().read()
            same = idle.sock
            for _ in range(2 * CONNECTIONS):
                stack.enter_context(closing(connected(running.port, b"", "127.0.0.2")))
        assert idle.sock is same


def test_a_body_of_tiny_chunks_is_refused_unread(running):
    chunks = b"1\r\nx\r\n" * 40_000
    with closing(connected(running.port, head(None, "Transfer-Encoding: chunked"))) as connection:
        threading.Thread(target=_send_all, args=(connection, chunks * 20), daemon=True).start()
        assert_answers(running.port)
        assert said(connection).startswith(b"HTTP/1.1 411 ")


def _send_all(connection: socket.socket, content: bytes) -> None:
    with suppress(OSError):  # the server closes
        connection.sendall(content)


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00" * 99, b"GET\r\n\r\n", b"\0" * 99_999, b"a: b\r\n" * 9999]
)
def test_garbage_is_refused(running, garbage):
    with closing(connected(running.port, garbage)) as connection:
        assert said(connection).startswith(b"HTTP/1.1 400 ")
    assert_answers(running.port)


def test_who_sends_too_much_is_told_so(running):
    """The answer comes although the client reads nothing before it has sent all."""
    status, content = ask(running.port, "/predict", bytes(5_000_000), {"Content-Type": "image/png"})
    assert (status, json.loads(content)) == (413, {"detail": "A body has at most 1 million bytes."})


def test_who_asks_before_sending_too_much_need_not_send_it(running):
    sent = head(5_000_000, "Expect: 100-continue")
    with closing(connected(running.port, sent)) as connection:
        assert said(connection).startswith(b"HTTP/1.1 413 ")


def test_answers_do_not_wait_for_acknowledgements(running):
    """These take 40 ms, but for the first on a connection."""
    seconds = []
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)) as connection:
        for _ in range(40):
            began = time.monotonic()
            connection.request("GET", "/health")
            connection.getresponse().read()
            seconds.append(time.monotonic() - began)
    assert min(seconds[20:]) < 0.03


def test_requests_on_one_connection(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    with closing(connection):
        for _ in range(3):
            connection.request("POST", "/predict", BODY, FORM)
            response = connection.getresponse()
            assert (response.status, response.headers.get("Connection")) == (200, None)
            response.read()


# The end


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_stop_under_load_loses_nothing(folder, tmp_path):
    """Every request is answered; the last answer on each connection says that it is the last."""
    (tmp_path / "token").write_text("word-of-sixteen-or-more\n")
    allowed = {"Authorization": "Bearer word-of-sixteen-or-more"}
    statuses: list[list[int]] = [[] for _ in range(8)]
    last: list[str | None] = [None] * 8

    def client(i: int, port: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            while last[i] is None:
                connection.request("POST", "/predict", BODY, FORM | allowed)
                response = connection.getresponse()
                response.read()
                statuses[i].append(response.status)
                last[i] = response.headers.get("Connection")

    def refuses(port: int) -> bool:
        try:
            return ask(port, "/health") is None
        except ConnectionRefusedError:
            return True

    options = ("--token-file", str(tmp_path / "token"), "--alpha", "0.2", "--linger", "2")
    with server(folder, *options) as running:
        assert running.said == f"oodream: {guard().at(0.2).guarantee}\n"
        assert ask(running.port, "/predict", BODY, FORM)[0] == 401
        threads = [threading.Thread(target=client, args=(i, running.port)) for i in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: all(len(answered) > 2 for answered in statuses))
        picture = FILES[0][1]
        half = head(len(picture), f"Authorization: {allowed['Authorization']}") + picture[:50]
        slow = connected(running.port, half)
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: ask(running.port, "/health") == (503, b'{"status":"stopping"}'))
        until(lambda: refuses(running.port))
        slow.sendall(picture[50:])
        assert said(slow).startswith(b"HTTP/1.1 200 ")
        for thread in threads:
            thread.join(20)
        output, errors = running.process.communicate(timeout=20)
    assert (running.process.returncode, output, errors) == (0, "oodream: stopped\n", "")
    assert last == ["close"] * 8
    assert {status for answered in statuses for status in answered} == {200}


# The command


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("clients must send a token", ("--host", "0.0.0.0")),
        ("clients must send a token", ("--host", "guard.example")),
        ("one word of at least 16", ("--token-file", "short")),
        ("one word of at least 16", ("--token-file", "several")),
        ("nowhere cannot be read", ("--token-file", "nowhere")),
        ("proxies are addresses, or networks", ("--proxies", "proxy.example")),
        ("threads must be between 0 and 4096", ("--threads", "-1")),
        ("max_pictures must be between 1 and 4096, not 0", ("--max-pictures", "0")),
        ("these can guarantee 0.003", ("--alpha", "0.0001")),
        ("Choose another", ("--port", "{taken}")),
        ("port 70000: bind(): port must be 0-65535. Choose another", ("--port", "70000")),
    ],
)
def test_the_command_refuses(folder, tmp_path, monkeypatch, capsys, words, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("secret")
    (tmp_path / "several").write_text("several words of many letters")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folder), *(option.replace("{taken}", port) for option in options)]) == 2
    assert words in capsys.readouterr().err


def test_the_command_refuses_what_is_no_guard(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert "holds no guard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.example", False),
    ],
)
def test_what_only_this_machine_reaches(host, loopback):
    assert is_loopback(host) == loopback
