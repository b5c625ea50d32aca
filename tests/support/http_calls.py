"""Speaks HTTP to a daemon as curl and browsers do, and as no client library would."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from tests.support.daemons import Daemon


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def reason(self) -> str:
        """The stable word of an error."""
        return str(self.body["error"]["reason"])


def ask(daemon: Daemon, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
    """Send one request; `Sec_Fetch_Site="..."` sends a header."""
    return ask_port(daemon.http_port, method, path, body=body, **headers)


def ask_port(port: int, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
    """As `ask`, for any server on `port` of loopback."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    text = None
    if body is not None:
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, text, sent)
        answer = connection.getresponse()
        return _answer(answer)
    finally:
        connection.close()


def ask_raw(daemon: Daemon, target: bytes, method: bytes = b"DELETE") -> Answer:
    """Send `target` unchanged, which no client library would do."""
    with socket.create_connection(("127.0.0.1", daemon.http_port), timeout=20) as connection:
        connection.sendall(
            method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answer = http.client.HTTPResponse(connection, method=method.decode())
        answer.begin()
        return _answer(answer)


def _answer(answer: http.client.HTTPResponse) -> Answer:
    data = answer.read()
    is_json = answer.headers.get_content_type() == "application/json"
    return Answer(
        answer.status,
        {name.lower(): value for name, value in answer.getheaders()},
        json.loads(data) if is_json and data else data.decode(errors="replace"),
    )
