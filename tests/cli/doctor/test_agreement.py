"""Does doctor find every fault that `serve` refuses, and report no error where `serve` works?

Each case spoils one thing of a host. The test runs every check of doctor on that host, and then
starts the daemon on it, in this process: if the daemon refuses, doctor must have reported an error.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from cachesvc.app.daemon import Daemon
from cachesvc.cli.doctor.checks import findings
from cachesvc.cli.doctor.findings import Finding, Level, Patient
from cachesvc.config import Settings
from cachesvc.core.errors import ConfigError
from tests.support.certificates import Authority
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

SOMEBODY = 4321
DIRECTORIES = ("runtime_dir", "state_dir", "l2.root")


@dataclass
class Host:
    settings: dict[str, Any]
    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def path(self, setting: str) -> Path:
        if setting == "l2.root":
            return Path(self.settings["l2"]["root"])
        return Path(self.settings[setting])

    def set(self, setting: str, path: Path) -> None:
        if setting == "l2.root":
            self.settings["l2"]["root"] = path
        else:
            self.settings[setting] = path

    def mount(self, size_bytes: int = 64 << 20, inodes: int = 0) -> SmallFilesystem:
        mounted = small_filesystem(self.folder / "mount", size_bytes, inodes)
        return self.stack.enter_context(mounted)

    def doctors_errors(self) -> list[Finding]:
        found = findings(Patient(Settings(**self.settings)))
        return [finding for finding in found if finding.level is Level.ERROR]

    def refusal(self) -> str | None:
        """Return why the daemon does not start, or None if it started and was stopped."""
        return asyncio.run(self._refusal())

    async def _refusal(self) -> str | None:
        daemon = Daemon(Settings(**self.settings))
        try:
            await daemon.start()
        except ConfigError as exc:
            return str(exc)
        await daemon.stop()
        return None


@pytest.fixture
def host(settings: dict[str, Any], tmp_path: Path) -> Iterator[Host]:
    host = Host(settings | {"runtime_dir": settings["runtime_dir"] / "ours"}, tmp_path)
    with host.stack:
        yield host


def linked(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = path.parent / f"{path.name}-elsewhere"
    elsewhere.mkdir()
    path.symlink_to(elsewhere)


def a_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def somebody_elses(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, SOMEBODY, SOMEBODY)


def below_a_file(host: Host, setting: str) -> None:
    (host.folder / "file").write_text("")
    host.set(setting, host.folder / "file/below")


def read_only(host: Host, setting: str) -> None:
    small = host.mount()
    host.set(setting, small.path / "ours")
    small.set_read_only(True)


def read_only_but_made(host: Host, setting: str) -> None:
    small = host.mount()
    host.set(setting, small.path / "ours")
    (small.path / "ours").mkdir(mode=0o750)
    small.set_read_only(True)


def without_inodes(host: Host, setting: str) -> None:
    small = host.mount(inodes=3)
    host.set(setting, small.path / "ours")
    (small.path / "ours").mkdir(mode=0o750)
    (small.path / "other").write_text("")


def full(host: Host, setting: str) -> None:
    small = host.mount(1 << 20)
    host.set(setting, small.path / "ours")
    (small.path / "ours").mkdir(mode=0o750)
    small.fill()


def the_same(host: Host, setting: str, other: str) -> None:
    host.set(setting, host.path(other))


def at(host: Host, setting: str, name: str, spoil: Callable[[Path], None]) -> None:
    spoil(host.path(setting) / name)


def a_directory(path: Path) -> None:
    path.mkdir(parents=True)


def a_small_tmpfs(host: Host) -> None:
    host.settings["runtime_dir"] = host.mount(2 << 20).path / "ours"
    host.settings["l1"] = {"max_bytes": 4 << 20}


def a_tmpfs_that_is_too_small_by_the_spare_files(host: Host) -> None:
    small = host.mount(4 << 20)
    host.settings["runtime_dir"] = small.path / "ours"
    (small.path / "ours/l1").mkdir(parents=True, mode=0o750)
    (small.path / "other").write_bytes(bytes(1 << 20))
    host.settings["l1"] = {"max_bytes": 4 << 20, "spare_bytes": 2 << 20}


def a_tmpfs_that_a_dead_daemons_files_fill(host: Host) -> None:
    small = host.mount(4 << 20)
    host.settings["runtime_dir"] = small.path / "ours"
    (small.path / "ours/l1").mkdir(parents=True, mode=0o750)
    (small.path / "ours/l1/old.safetensors").write_bytes(bytes(3 << 20))
    host.settings["l1"] = {"max_bytes": 3 << 20}


def no_such_group(host: Host) -> None:
    host.settings["group"] = "no-such-group"


def a_taken_port(host: Host, section: str) -> None:
    taken = host.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    host.settings[section] = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}


def one_port_for_both(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    host.settings |= {name: {"listen": f"127.0.0.1:{port}"} for name in ("grpc", "http")}


def one_socket_for_both(host: Host) -> None:
    host.settings["grpc"] = {"socket": host.path("runtime_dir") / "admin.sock"}


def a_socket_somebody_listens_on(host: Host) -> None:
    host.path("runtime_dir").mkdir(mode=0o750)
    server = host.stack.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(str(host.path("runtime_dir") / "cachesvc.sock"))
    server.listen()


def a_socket_path_that_is_too_long(host: Host) -> None:
    host.settings["grpc"] = {"socket": Path("/dev/shm") / ("x" * 100) / "cachesvc.sock"}


def a_socket_below_a_file(host: Host) -> None:
    (host.folder / "file").write_text("")
    host.settings["grpc"] = {"socket": host.folder / "file/cachesvc.sock"}


def anothers_key(host: Host) -> None:
    certificate, _ = Authority("ca").issue("host").write(host.folder, "server")
    _, key = Authority("ca").issue("host").write(host.folder, "other")
    host.settings["http"] = {
        "listen": "127.0.0.1:0",
        "tls": {"cert_file": certificate, "key_file": key},
    }


Spoil = Callable[[Host], None]
CASES: dict[str, Spoil] = {
    "nothing": lambda host: None,
    "tmpfs is too small": a_small_tmpfs,
    "tmpfs is too small by the spare files": a_tmpfs_that_is_too_small_by_the_spare_files,
    "a dead daemon's files fill tmpfs": a_tmpfs_that_a_dead_daemons_files_fill,
    "there is no such group": no_such_group,
    "the HTTP port is taken": partial(a_taken_port, section="http"),
    "the gRPC port is taken": partial(a_taken_port, section="grpc"),
    "both ports are the same": one_port_for_both,
    "the socket is the admin's": one_socket_for_both,
    "somebody listens on the socket": a_socket_somebody_listens_on,
    "the socket's path is too long": a_socket_path_that_is_too_long,
    "the socket lies below a file": a_socket_below_a_file,
    "the TLS key is another certificate's": anothers_key,
}


IN_PLACE: dict[str, Callable[[Path], None]] = {
    "is a link": linked,
    "is a file": a_file,
    "is somebody else's": somebody_elses,
}
for setting in DIRECTORIES:
    for what, put in IN_PLACE.items():
        CASES[f"{setting} {what}"] = partial(at, setting=setting, name="", spoil=put)
    CASES |= {
        f"{setting} lies below a file": partial(below_a_file, setting=setting),
        f"{setting} is to be made on a read-only disk": partial(read_only, setting=setting),
        f"{setting} lies on a read-only disk": partial(read_only_but_made, setting=setting),
        f"{setting} has no inodes left": partial(without_inodes, setting=setting),
        f"{setting} has no byte left": partial(full, setting=setting),
    }
for setting, other in combinations(DIRECTORIES, 2):
    CASES[f"{setting} is {other}"] = partial(the_same, setting=setting, other=other)
for setting, name in (
    ("runtime_dir", "l1"),
    ("l2.root", ".tmp"),
    ("l2.root", ".quarantine"),
    ("l2.root", "garment"),
):
    for what, put in IN_PLACE.items():
        CASES[f"{name} in {setting} {what}"] = partial(at, setting=setting, name=name, spoil=put)
for setting, name in (
    ("runtime_dir", "control"),
    ("runtime_dir", "cachesvc.sock"),
    ("runtime_dir", "admin.sock"),
    ("runtime_dir", "catalog"),
    ("l2.root", ".catalog"),
    ("state_dir", "catalog.sqlite"),
    ("state_dir", "audit.key"),
):
    CASES[f"{name} in {setting} is a directory"] = partial(
        at, setting=setting, name=name, spoil=a_directory
    )
# With the other cases the daemon may start, but would not work as promised.
STARTS_WELL = ("nothing", "a dead daemon's files fill tmpfs")


@pytest.mark.parametrize("case", list(CASES))
def test_doctor_calls_an_error_what_serve_refuses_and_nothing_else(host: Host, case: str) -> None:
    CASES[case](host)
    errors = host.doctors_errors()
    refusal = host.refusal()
    if refusal is not None:
        assert errors, refusal
    elif case in STARTS_WELL:
        assert errors == []
