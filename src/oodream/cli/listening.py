"""What commands that serve share: who may ask, the token, the address."""

from __future__ import annotations

import socket
from pathlib import Path

from ..core.files import read_text, shown
from ..core.options import ConfigError
from ..core.packages import missing

__all__ = ["address", "check_host", "needs", "read_token"]

MIN_TOKEN = 16


def needs(error: ModuleNotFoundError, what: str, extra: str) -> ConfigError:
    """What to do where a package is not installed."""
    return ConfigError(missing(what, error.name or "more packages", extra))


def check_host(host: str, token: str | None) -> None:
    """Raises ConfigError for a host that other machines reach, unless there is a token."""
    from ..deploy.serving.server import is_loopback

    if token is None and not is_loopback(host):
        raise ConfigError(
            f"Other machines reach {host}, so clients must send a token: --token-file FILE. "
            "Without one the server is for this machine alone: --host 127.0.0.1."
        )


def address(listening: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def read_token(file: Path | None) -> str | None:
    """The token in a file, None without one; ConfigError for one that is none, or easily guessed."""
    if file is None:
        return None
    try:
        token = read_text(file).strip()
    except OSError as error:
        raise ConfigError(f"The token file {shown(file)} cannot be read: {error.strerror}.") from error
    if len(token) < MIN_TOKEN or not token.isascii() or len(token.split()) != 1:
        raise ConfigError(
            f"{shown(file)} must hold one word of at least {MIN_TOKEN} letters and digits, as this makes: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token
