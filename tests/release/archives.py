"""What must, and must not, be in a wheel and an sdist?"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# The lock, with all its hashes, is the largest text; a file beyond this is data.
FILE_BYTES = 256 << 10
CONTRACT = "proto/cachesvc/v1/cache.proto"
# Folders of the checkout: tests with their corpus, benchmarks with their results, tools.
FORBIDDEN = {"tests", "bench", "examples", "node_modules", "build", "dist", "__pycache__"}
OF_EVERY_SDIST = {"PKG-INFO", "pyproject.toml", "README.md", "LICENSE", CONTRACT}


@dataclass(frozen=True)
class Package:
    """One of the two distributions."""

    name: str  # as in the names of its files
    folder: str  # of its project, in the checkout
    in_sdist: frozenset[str]
    in_wheel: frozenset[str]


PACKAGES = (
    Package(
        "cachesvc_client",
        "client",
        frozenset({"cachesvc_client/_revision.py", "hatch_build.py"}),
        frozenset(
            {
                "cachesvc_client/__init__.py",
                "cachesvc_client/_revision.py",
                "cachesvc_client/py.typed",
                "cachesvc_format/__init__.py",
                "cachesvc_proto/v1/cache_pb2.py",
            }
        ),
    ),
    Package(
        "cachesvc",
        ".",
        frozenset({"cachesvc/_revision.py", "requirements.lock", "CHANGELOG.md"}),
        frozenset(
            {
                "cachesvc/__init__.py",
                "cachesvc/_revision.py",
                "cachesvc/edge/http/static/index.html",
            }
        ),
    ),
)


def files_of_sdist(path: Path) -> dict[str, bytes]:
    """Return the sdist's files, by their paths below its only folder."""
    with tarfile.open(path) as opened:
        return {
            member.name.partition("/")[2]: _read(opened, member)
            for member in opened
            if not member.isdir()
        }


def _read(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    return b"" if file is None else file.read()


def files_of_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def faults_of_sdist(package: Package, files: Mapping[str, bytes]) -> list[str]:
    """Return a line for each file that is missing from the sdist, or must not be in it."""
    return [
        *_missing(OF_EVERY_SDIST | package.in_sdist, files),
        *(fault for name, data in files.items() for fault in _faults_of(name, data)),
    ]


def faults_of_wheel(package: Package, files: Mapping[str, bytes]) -> list[str]:
    is_licensed = any(name.endswith(".dist-info/licenses/LICENSE") for name in files)
    return [
        *_missing(package.in_wheel, files),
        *([] if is_licensed else ["it has no licenses/LICENSE"]),
        *(fault for name, data in files.items() for fault in _faults_of(name, data)),
    ]


def _missing(needed: set[str] | frozenset[str], files: Mapping[str, bytes]) -> list[str]:
    return [f"it lacks {name}" for name in sorted(needed - files.keys())]


def _faults_of(name: str, data: bytes) -> list[str]:
    parts = PurePosixPath(name).parts
    faults = []
    if FORBIDDEN & {*parts} or any(part.startswith(".") for part in parts):
        faults.append(f"{name} is not for users")
    if len(data) > FILE_BYTES:
        faults.append(f"{name} has {len(data):,} bytes, more than {FILE_BYTES:,}")
    if b"\0" in data:
        faults.append(f"{name} is binary")
    return faults
