"""Who may ask the studio what: hosts, origins, the token, the size of bodies, and the headers of answers."""

from __future__ import annotations

import hashlib
import hmac
import traceback
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["COOKIE", "HEADERS", "MAX_BODY", "Safety", "allows", "cookie_value", "host_name", "same"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
COOKIE = "oodream-studio"
MAX_BODY = 32_000_000  # bytes of one request
TOO_LARGE = f"At most {MAX_BODY // 1_000_000} MB are taken at once."
SAFE = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
OPEN = ("/enter", "/static/")  # what is answered without the token


class Safety:
    """The outermost layer: refuses what no page of the studio asks, and puts `HEADERS` on every answer that
    has none of its own.

    Without a token the studio is for its own machine: it is addressed by a name of the loopback alone, so no
    page in a browser can ask it under a name of its own. With a token, requests bring it in a cookie or as a
    bearer. Either way another site's page can neither change nor read anything: browsers say where a request
    comes from, and what comes from elsewhere is refused, but for following a link to a page.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, read, started = Headers(scope=scope), 0, False

        async def send_safe(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out.setdefault(name, value)
                out.setdefault("Cache-Control", "no-store")
            await send(message)

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise HTTPException(413, TOO_LARGE)
            return message

        if refusal := self.refusal(scope, headers):
            await refusal(scope, receive, send_safe)
            return
        try:
            await self.app(scope, receive_some, send_safe)
        except Exception:  # a fault of ours, which its page is told of, and the terminal in full
            traceback.print_exc()
            if not started:
                text = "This failed; the terminal of the studio says how."
                await _refused(500, text, scope)(scope, receive, send_safe)

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that is refused; None for one that may pass."""
        if self.token is None and host_name(headers.get("host", "")) not in LOOPBACK:
            return _refused(400, "The studio is asked by a name that is not this machine's own.", scope)
        if not _from_here(scope, headers):
            return _refused(403, "The studio answers no other site's pages.", scope)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return _refused(413, TOO_LARGE, scope)
        if self.token is None or scope["path"].startswith(OPEN) or allows(self.token, headers):
            return None
        if scope["method"] == "GET" and not scope["path"].startswith("/api/"):
            return Response(status_code=303, headers={"Location": "/enter"})
        return _refused(401, "The studio asks for its token.", scope, {"WWW-Authenticate": "Bearer"})


def allows(token: str, headers: Headers) -> bool:
    """Whether a request brings the token, or the cookie that stands for it."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and same(value, token):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and same(cookie.value, cookie_value(token))


def same(a: str, b: str) -> bool:
    """Whether two texts are equal, in a time that does not say how far."""
    return hmac.compare_digest(a.encode(), b.encode())


def cookie_value(token: str) -> str:
    """What the cookie holds: whoever reads it does not know the token."""
    return hmac.new(token.encode(), COOKIE.encode(), hashlib.sha256).hexdigest()


def host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _from_here(scope: Scope, headers: Headers) -> bool:
    """Whether a request comes from the studio's pages, from a program, or follows a link to a page."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return False
    if site in (None, "same-origin", "none"):
        return True
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return link and scope["method"] in SAFE and not scope["path"].startswith("/api/")


def _refused(status: int, text: str, scope: Scope, headers: dict[str, Any] | None = None) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"detail": text}, status, headers)
    return HTMLResponse(f"<!doctype html><title>oodream studio</title><p>{text}</p>", status, headers)
