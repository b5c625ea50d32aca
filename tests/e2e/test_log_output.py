"""Promise 8: does a call ever wait for the log's reader, and are lost lines counted?"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.daemons import Daemon, wait_until
from tests.support.grpc_calls import TIMEOUT_S, get_human
from tests.support.sample_objects import fresh_id, person, put_in_folder
from tests.support.secured import Credentials, secured_daemon

WITHIN_S = 20.0
# More lines than a pipe (64 KiB) and the queue hold; each call is one line at this level.
CALLS = 4_000


@contextmanager
def unread(daemon: Daemon) -> Iterator[int]:
    """Start `daemon` with a pipe as its stderr; yield the end that is not read yet."""
    reading, writing = os.pipe()
    try:
        daemon.start_with_output(writing)
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def read_available(fd: int) -> bytes:
    """Return the bytes that are in the pipe, and those that come while it is read."""
    os.set_blocking(fd, False)
    found = bytearray()
    try:
        while data := os.read(fd, 1 << 20):
            found += data
    except BlockingIOError:
        pass
    return bytes(found)


def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path: Path) -> None:
    daemon, user = Daemon(tmp_path, {"LOG_LEVEL": "debug"}), fresh_id("u")
    put_in_folder(daemon.origin_dir, person(user))
    try:
        with unread(daemon) as reading:
            stub = daemon.stub()
            get_human(stub, user)
            for _ in range(CALLS):
                stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
            assert get_human(stub, user).tensors
            dropped = daemon.metrics()["cachesvc_log_lines_dropped_total"]
            assert dropped > 0

            # The pipe is read again: the queued lines come, and the count of the missing ones.
            text = bytearray()

            def says_how_many() -> bool:
                text.extend(read_available(reading))
                return b'"log_lines_dropped"' in text

            wait_until(says_how_many, WITHIN_S)
            stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
            os.set_blocking(reading, True)
            for _ in range(CALLS):
                stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
            os.kill(daemon.pid, signal.SIGHUP)
            # The pipe is full again: the daemon must end all the same.
            assert daemon.stop() == 0
    finally:
        daemon.close()
    said = [json.loads(line) for line in text.splitlines() if b'"log_lines_dropped"' in line]
    assert said[0]["level"] == "warning"
    assert said[0]["count"] > 0


def test_a_log_on_a_full_disk_is_counted_and_holds_up_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        daemon.start_with_output(full)
        daemon.stub().Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
        wait_until(lambda: daemon.metrics()["cachesvc_log_lines_dropped_total"] > 0, WITHIN_S)
        assert daemon.stop() == 0
    finally:
        os.close(full)
        daemon.close()


def test_lines_have_their_priority_where_the_journal_reads_them(tmp_path: Path) -> None:
    """`journalctl -p warning` finds warnings; JOURNAL_STREAM tells the daemon that the journal
    reads.
    """
    config = tmp_path / "cachesvc.toml"
    config.write_text("")
    log = tmp_path / "journal"
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    status = os.fstat(out)
    stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    daemon = Daemon(tmp_path, environment=stream, arguments=("--config", str(config)))
    try:
        daemon.start_with_output(out)
        config.unlink()
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: '"reload"' in log.read_text(), WITHIN_S)
        assert daemon.stop() == 0
    finally:
        os.close(out)
        daemon.close()
    lines = [line.partition("{") for line in log.read_text().splitlines()]
    by_event = {json.loads(brace + rest)["event"]: prefix for prefix, brace, rest in lines}
    assert by_event["serving"] == "<6>"
    assert by_event["reload"] == "<4>"


def test_another_files_journal_stream_changes_no_line(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, environment={"JOURNAL_STREAM": "1:1"})
    try:
        daemon.start()
        assert daemon.stop() == 0
        assert json.loads(daemon.log_text().splitlines()[0])["event"] == "serving"
    finally:
        daemon.close()


def test_failed_handshakes_are_counted_and_their_lines_are_json(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.know(tokens=[{"name": "o", "token": "token-of-observer", "roles": ["observer"]}])
    with secured_daemon(tmp_path, credentials, demand_certificates=True) as (daemon, address):
        series = 'cachesvc_handshake_failures_total{listener="grpc"}'
        assert daemon.metrics()[series] == 0
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WITHIN_S) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4)
            wait_until(lambda: daemon.metrics()[series] == 1, WITHIN_S)
        lines = [json.loads(line) for line in daemon.log_text().splitlines()]
        (line,) = [line for line in lines if line["event"] == "grpc_core"]
        assert line["level"] == "warning"
        assert "andshake failed" in line["text"]
