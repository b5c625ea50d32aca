"""`make release-check`: does what would be published build, install and serve, on each Python?

    python -m tests.release [--pythons "3.11 /opt/bin/python3.12"] [--torch 3.11] [--into DIR]

The last commit is cloned, so changes that are not committed count for nothing. Wheels and sdists
are built from the clone and their contents are checked. Each Python then gets environments with
nothing of the checkout: a bare client, a client with extras, a daemon with the newest dependencies
that its metadata allow, and one with those of the lock. The daemons serve the README's first Get,
from their command line and to the clients. Packages of ours come from files only; pip's cache keeps
the others. The README's worker needs torch, and runs on the Python that --torch names. One line
says what each Python did; the exit code is 0 if everything holds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.release import archives, first_get
from tests.release.archives import PACKAGES, Package
from tests.release.pythons import (
    DAEMON_SINCE,
    WANTED,
    Environment,
    Failed,
    Python,
    find,
    run,
)

ROOT = Path(__file__).parents[2]
AT_ONCE = 2
OURS = ("cachesvc-client", "cachesvc")
_REVISION = "from {} import _revision; print(_revision.REVISION)"


class Release:
    """The built files, and what each Python does with them."""

    def __init__(self, folder: Path, torch: str) -> None:
        self._folder = folder
        self._torch = torch
        self.checkout = folder / "checkout"
        self.dist = folder / "dist"
        run(("git", "clone", "--quiet", ROOT, self.checkout))
        self.commit = run(("git", "-C", self.checkout, "rev-parse", "HEAD")).strip()

    def build(self) -> None:
        """Build as publishing does: the sdist, and the wheel from it; check both."""
        for package in PACKAGES:
            project = self.checkout / package.folder
            run((sys.executable, "-m", "build", "--no-isolation", "--outdir", self.dist, project))
        changed = run(("git", "-C", self.checkout, "status", "--porcelain"))
        if changed:
            raise Failed(f"the build changed the checkout:\n{changed}")
        faults = [fault for package in PACKAGES for fault in self._faults(package)]
        if faults:
            raise Failed("\n".join(faults))
        run((sys.executable, "-m", "twine", "check", "--strict", *self.dist.iterdir()))

    def copy_into(self, folder: Path) -> None:
        """Copy each package's files into a folder of its name."""
        for package in PACKAGES:
            (folder / package.name).mkdir(parents=True, exist_ok=True)
            for built in self.dist.glob(f"{package.name}-[0-9]*"):
                shutil.copy(built, folder / package.name)

    def wheel(self, package: Package, extras: str = "") -> str:
        return f"{self._built(package, '-py3-none-any.whl')}{extras}"

    def _built(self, package: Package, ending: str) -> Path:
        (found,) = self.dist.glob(f"{package.name}-[0-9]*{ending}")
        return found

    def _faults(self, package: Package) -> list[str]:
        sdist = self._built(package, ".tar.gz")
        wheel = Path(self.wheel(package))
        return [
            *(f"{sdist.name}: {fault}" for fault in
              archives.faults_of_sdist(package, archives.files_of_sdist(sdist))),
            *(f"{wheel.name}: {fault}" for fault in
              archives.faults_of_wheel(package, archives.files_of_wheel(wheel))),
        ]  # fmt: skip

    # ---- one Python

    def install(self, python: Python) -> Installed:
        """Install everything that this Python is for."""
        tools = Environment(python, self._folder / python.version / "tools")

        def environment(name: str, *packages: str | Path) -> Environment:
            made = Environment(python, self._folder / python.version / name, tools)
            made.install(*packages)
            return made

        client, daemon = PACKAGES
        for package in PACKAGES:
            if package is client or python.minor >= DAEMON_SINCE:
                self._wheel_of_sdist(package, tools)
        extras = "[numpy,images,torch]" if self._has_torch(python) else "[numpy,images]"
        constraints = ("-c", self.checkout / "constraints.txt")
        bare = environment("bare-client", self.wheel(client))
        rich = environment("client", *constraints, self.wheel(client, extras))
        daemons = []
        if python.minor >= DAEMON_SINCE:
            wheels = (self.wheel(client), self.wheel(daemon))
            newest = environment("daemon", *wheels)
            lock = ("--require-hashes", "-r", self.checkout / "requirements.lock")
            locked = environment("locked-daemon", *lock)
            locked.install("--no-index", "--no-deps", *wheels)
            daemons = [newest, locked]
        for made in (bare, rich, *daemons):
            ours = OURS if made in daemons else OURS[:1]
            made.must_have_from_files(*ours)
            self._check_commit(made, ours[-1].replace("-", "_"))
        return Installed(python, bare, rich, daemons)

    def _has_torch(self, python: Python) -> bool:
        return bool(self._torch) and python.version.startswith(self._torch)

    def _wheel_of_sdist(self, package: Package, tools: Environment) -> None:
        """Fail unless a user who builds a wheel from the sdist gets the published one's files."""
        out = tools.folder / package.name
        sdist = self._built(package, ".tar.gz")
        tools.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", out, sdist)
        (made,) = out.iterdir()
        theirs, ours = (archives.files_of_wheel(Path(w)) for w in (made, self.wheel(package)))
        differing = {name for name in theirs.keys() | ours.keys()
                     if theirs.get(name) != ours.get(name)}  # fmt: skip
        # Two builds may name another builder in WHEEL, and so have another RECORD.
        if left := [n for n in differing if not n.endswith((".dist-info/WHEEL", "/RECORD"))]:
            raise Failed(f"a wheel built from {package.name}'s sdist differs: {sorted(left)}")

    def _check_commit(self, environment: Environment, package: str) -> None:
        said = environment.run(_REVISION.format(package)).strip()
        if said != self.commit:
            raise Failed(f"{package} says it is {said}, not {self.commit}")

    def serve(self, installed: Installed, clients: Sequence[Installed]) -> str:
        """Have the daemons serve the first Get, to these Pythons' clients too."""
        said = []
        for environment in installed.daemons:
            with first_get.daemon_of(environment, self.checkout) as daemon:
                first_get.ask(daemon)
                version = daemon.type(".venv/bin/cachesvc version")
                if f"revision {self.commit}\n" not in version:
                    raise Failed(f"`cachesvc version` does not say {self.commit}:\n{version}")
                said += [self._get(client, daemon) for client in clients]
        return f"the README's first Get is served to the clients of {', '.join(sorted({*said}))}"

    def _get(self, client: Installed, daemon: first_get.Daemon) -> str:
        client.bare.run(first_get.BARE_CLIENT, env=daemon.variables)
        libraries = client.rich.run(first_get.CLIENT, env=daemon.variables).strip()
        if self._has_torch(client.python):
            client.rich.run(first_get.worker(self.checkout / "README.md"), env=daemon.variables)
            libraries += ", torch"
        return f"{client.python.version} ({libraries})"


class Installed:
    """The environments of one Python."""

    def __init__(
        self, python: Python, bare: Environment, rich: Environment, daemons: list[Environment]
    ) -> None:
        self.python = python
        self.bare = bare
        self.rich = rich
        self.daemons = daemons


def main() -> int:
    asked = _arguments()
    found = [*find(asked.pythons.split())]
    pythons = [each for each in found if isinstance(each, Python)]
    for skipped in (each for each in found if isinstance(each, str)):
        print(skipped)
    if not any(python.minor >= DAEMON_SINCE for python in pythons):
        print("No Python from 3.11 on can make an environment: nothing was checked.")
        return 1
    if run(("git", "-C", ROOT, "status", "--porcelain")):
        print("Changes that are not committed are not checked.")
    with tempfile.TemporaryDirectory(prefix="cachesvc-release-") as folder:
        try:
            release = Release(Path(folder), asked.torch)
            release.build()
        except Failed as exc:
            print(f"build: FAILED: {exc}")
            return 1
        print(f"built {release.commit[:12]}:", *sorted(p.name for p in release.dist.iterdir()))
        if asked.into is not None:
            release.copy_into(asked.into)
        return _check(release, pythons)


def _check(release: Release, pythons: list[Python]) -> int:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [(python, pool.submit(release.install, python)) for python in pythons]
        installed = [(python, _result(future.result)) for python, future in waiting]
    ready = [done for _, done in installed if isinstance(done, Installed)]
    # The first daemon also serves the clients of Pythons that are too old for a daemon.
    alone = [each for each in ready if not each.daemons]
    failures = 0
    for python, done in installed:
        said: object = done
        if isinstance(done, Installed):
            said = "the client is installed; its Gets are below"
            if done.daemons:
                clients, alone = [*alone, done], []
                said = _result(lambda done=done, clients=clients: release.serve(done, clients))
        failed = isinstance(said, Failed)
        failures += failed
        print(f"Python {python.version}: {'FAILED' if failed else 'ok'}: {said}", flush=True)
    if alone:
        print("No daemon served the other Pythons' clients.")
    return 1 if failures or alone else 0


def _result(call: Callable[[], object]) -> object:
    """Return the result, or what failed: the other Pythons are checked all the same."""
    try:
        return call()
    except Failed as exc:
        return exc
    except subprocess.TimeoutExpired as exc:
        return Failed(str(exc))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make release-check")
    parser.add_argument("--pythons", default=" ".join(WANTED), help="versions or paths")
    parser.add_argument("--torch", default="", help="the Python that runs the README's worker")
    parser.add_argument("--into", type=Path, help="copy the built files into this folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
