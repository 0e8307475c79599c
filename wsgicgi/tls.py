"""HTTPS for the local server: waitress with TLS on its connections, which it has not by itself.

The listening socket makes TLS sockets of its connections (``ssl``), and ``TLSChannel`` teaches waitress's channel their
two peculiarities: that "nothing yet" is an exception of its own, and that the end is said before it comes. Handshakes
happen with the first reads, so a client that does not finish its own holds up nobody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from typing import Any

import waitress.channel

from .errors import ConfigError

#: Bytes of a TLS record. Less must not be read at once: what stays inside the TLS layer wakes nobody up.
RECORD = 16 * 1024

_logger = logging.getLogger("wsgicgi")

_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)

_PLAIN_HTTP = b"""HTTP/1.1 400 Bad Request\r
Content-Type: text/plain\r
Connection: close\r
\r
This port speaks HTTPS: write https:// instead of http://
"""


def context(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str] | None = None,
    password_file: str | os.PathLike[str] | None = None,
) -> ssl.SSLContext:
    """Make what a TLS server needs, TLS 1.2 or newer, from files as ``http.server`` takes them.

    Args:
        certificate: The chain of certificates (PEM); may hold the key too.
        key: The private key, if it is not there.
        password_file: Holds the password of the key, in one line.

    Raises:
        ConfigError: A file is missing or is none of these; the message names its option.
    """
    password = _password(password_file)
    _require_file("--tls-cert", certificate)
    if key is not None:
        _require_file("--tls-key", key)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    asked = False

    def give_password() -> str:
        nonlocal asked
        asked = True
        return password or ""

    try:
        # without a function, OpenSSL would ask on the terminal
        made.load_cert_chain(certificate, key, password=give_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(_why_not_loaded(error, certificate, key, password_file, asked=asked)) from None
    return made


def _password(file: str | os.PathLike[str] | None) -> str | None:
    if file is None:
        return None
    _require_file("--tls-password-file", file)
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read().strip()
    except ValueError:
        raise ConfigError(f"--tls-password-file: {os.fspath(file)!r} is no UTF-8 text") from None


def _require_file(option: str, file: str | os.PathLike[str]) -> None:
    try:
        with open(file, "rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{option}: cannot read {os.fspath(file)!r}: {reason}") from None


def _why_not_loaded(
    error: Exception,
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str] | None,
    password_file: str | os.PathLike[str] | None,
    *,
    asked: bool,
) -> str:
    key_file = os.fspath(certificate if key is None else key)
    reason = getattr(error, "reason", None) or str(error)
    if asked and password_file is None:
        return f"--tls-key: {key_file!r} is encrypted: name a file with its password by --tls-password-file"
    if asked:
        return f"--tls-password-file: {os.fspath(password_file or '')!r} does not hold the password of {key_file!r}"
    if reason == "KEY_VALUES_MISMATCH":
        return f"--tls-key: {key_file!r} is not the key of the certificate in {os.fspath(certificate)!r}"
    if not _holds(certificate, b"CERTIFICATE-----"):
        return f"--tls-cert: {os.fspath(certificate)!r} holds no certificate (PEM, '-----BEGIN CERTIFICATE-----')"
    if not _holds(key_file, b"PRIVATE KEY-----"):
        hint = "" if key is not None else ": name the file that does by --tls-key"
        return f"{'--tls-cert' if key is None else '--tls-key'}: {key_file!r} holds no private key (PEM){hint}"
    return f"--tls-cert: {os.fspath(certificate)!r} and {key_file!r} cannot be used: {reason}"


def _holds(file: str | os.PathLike[str], text: bytes) -> bool:
    with open(file, "rb") as opened:
        return text in opened.read()


def listen(made: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    """Make a listening socket one whose connections are TLS."""
    return made.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


class TLSChannel(waitress.channel.HTTPChannel):  # type: ignore[misc]  # waitress has no annotations
    """A connection of waitress's whose socket is an ``ssl.SSLSocket``."""

    def __init__(self, server: Any, sock: ssl.SSLSocket, addr: Any, adj: Any, map: Any = None) -> None:
        # The main thread reads, others write; OpenSSL wants them one at a time. Nobody waits inside.
        self._tls = threading.RLock()
        super().__init__(server, sock, addr, adj, map=map)

    def handle_read(self) -> None:
        """Take what has come, if it is a whole record; the handshake is done on the way."""
        try:
            with self._tls:
                data = self.socket.recv(RECORD)
        except _WAITING:
            return
        except OSError as error:
            self._tell(error)
            data = b""
        if not data:
            self.handle_close()
            return
        self.last_activity = time.time()
        self.received(data)

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what goes out at once; see ``wasyncore.dispatcher``.

        The layers below send one record at a time, and waitress copies what is left of its buffer after each call.
        """
        view, sent = memoryview(data), 0
        with self._tls, contextlib.suppress(*_WAITING):
            while sent < len(view) and (record := super().send(view[sent:], do_close=do_close)):
                sent += record
        return sent

    def handle_close(self) -> None:
        """Say the end to the other side, which could not tell it from a break otherwise, and close."""
        with self._tls:
            if self.socket is not None:
                with contextlib.suppress(OSError, ValueError):
                    self.socket.unwrap()
        super().handle_close()

    def _tell(self, error: OSError) -> None:
        reason = getattr(error, "reason", None)
        if reason == "HTTP_REQUEST":
            with contextlib.suppress(OSError):
                socket.socket.send(self.socket, _PLAIN_HTTP)
                socket.socket.recv(self.socket, 64 * 1024)  # a client does not see an answer to what was not read
        if reason:
            _logger.warning("no TLS connection with %s: %s", self.addr[0], reason)
