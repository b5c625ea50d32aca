"""Does `make programs` install what tests need, and leave dpkg sound however it ends?

apt-get and dpkg are stand-ins, which record their arguments and wait where a test tells them to.
`.ci/fresh-root` uses the real ones.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.daemons import wait_until
from tests.support.debian import TABLE, why_missing

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0
TABLE_IS_IN = "tests/support/debian.py"
COMMANDS = {command for row in TABLE for command in row.commands}
# Installing a package copies its programs into the only folder of PATH.
APT = r"""#!/bin/sh
PATH=/usr/bin:/bin lists="$BOX/root/var/lib/apt/lists/x_Packages"
echo "apt-get $*" >> "$BOX/log"
case " $* " in
  *" update "*) : > "$lists"; exit 0 ;;
  *" --download-only "*) phase=download ;;
  *) phase=install ;;
esac
for word in $*; do
  if [ ! -e "$lists" ] || [ -e "$BOX/absent-$word" ]; then
    echo "E: Unable to locate package $word"; exit 100
  fi
done
trap 'echo "$phase was ended" >> "$BOX/log"; exit 130' INT TERM HUP
if [ -e "$BOX/$phase-waits" ]; then
  echo "$phase waits" >> "$BOX/log"
  while [ -e "$BOX/$phase-waits" ]; do sleep 0.05; done
fi
[ $phase = install ] || exit 0
for word in $*; do [ ! -e "$BOX/packages/$word" ] || cp "$BOX/packages/$word"/* "$BOX/bin"; done
echo 'installed' >> "$BOX/log"
"""
DPKG = """#!/bin/sh
PATH=/usr/bin:/bin
[ ! -e "$BOX/audit" ] || cat "$BOX/audit"
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may install anything")


class Machine:
    """A machine with nothing but an apt-get; `log` has the apt-get's arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        for name in ("bin", "packages", "root/var/lib/dpkg/updates", "root/var/lib/apt/lists"):
            (folder / name).mkdir(parents=True)
        self.lock = folder / "root/var/lib/dpkg/lock-frontend"
        self.lock.touch()
        for name, text in (("apt-get", APT), ("dpkg", DPKG)):
            self._program(self.bin / name, text)
        for row in TABLE:
            for package in row.packages:
                (folder / "packages" / package).mkdir()
            for command in row.commands:
                self._program(folder / "packages" / row.packages[0] / command, "#!/bin/sh\n")

    def _program(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        # PATH has nothing of this machine: programs installed here are not found there.
        return {"PATH": str(self.bin), "BOX": str(self.folder), "PYTHONPATH": str(ROOT)}

    def start(
        self, *arguments: str, under: Sequence[str] = (), command: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        step = [sys.executable, "-B", "-c", STEP, "--root", str(self.folder / "root"), *arguments]
        return subprocess.Popen(
            command or [*under, *step],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        step = self.start(*arguments)
        said, _ = step.communicate(timeout=WITHIN_S)
        assert step.returncode == 0, said
        return said

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def asked(self, what: str) -> list[str]:
        return [line for line in self.log() if re.search(rf"apt-get .*\b{what}\b", line)]

    def has(self, line: str) -> None:
        wait_until(lambda: line in self.log(), WITHIN_S, lambda: str(self.log()))


# The files in this machine's own folders must not change the test's result.
STEP = """
import sys
from tests import install_programs
from tests.support import debian
debian._ADMINS_FOLDERS = ()
debian._can_load = bool
sys.exit(install_programs.main())
"""


PYTHON_FILES = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
INSTALLERS = {"tests/install_programs.py", "tests/support/apt.py"}
# Downloads packages, and installs none on the machine.
DOWNLOADERS = {"tests/foreign_files/sources.py"}
# Playwright needs the path of a browser.
LOOKERS = {"tests/support/debian.py", "tests/support/browser.py", *INSTALLERS}


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="cachesvc-programs-") as folder:
        Path(folder).chmod(0o755)
        yield Machine(Path(folder))


def test_what_is_missing_is_installed_and_named_also_with_empty_lists(machine: Machine) -> None:
    said = machine.run()
    assert "Programs installed: radosgw, chromium" in said
    assert "missing" not in said
    assert len(machine.asked("update")) == 1
    (download,) = machine.asked("download-only")
    for word in ("DPkg::Lock::Timeout=900", "--no-remove", "--no-install-recommends", "chromium"):
        assert word in download
    # A second time nothing is left to do, and apt-get is not called.
    asked = machine.log()
    assert machine.run().startswith("Programs found: radosgw, chromium")
    assert machine.log() == asked


def test_only_what_the_named_tests_use_is_installed(machine: Machine) -> None:
    assert "Programs installed: setpriv\n" in machine.run("tests/codec", "-k", "png")
    assert "chromium" not in str(machine.log())
    machine.run("tests/e2e/test_status_page.py::test_x")
    assert "chromium" in str(machine.log())
    assert "redis-server" not in str(machine.log())
    machine.run("--slow", "tests/deploy/test_nestjs.py")
    assert "redis-server" in str(machine.log())


def test_a_package_that_cannot_be_had_is_one_line_and_costs_no_other(machine: Machine) -> None:
    (machine.folder / "absent-chromium").touch()
    tried = machine.folder / "tried"
    said = machine.run("--tried", str(tried))
    (line,) = [line for line in said.splitlines() if line.startswith("Program missing: ")]
    assert line == (
        "Program missing: chromium: the tests that open the status page in a browser are skipped"
        " (tests/e2e/test_status_page.py)"
    )
    assert "E: Unable to locate package chromium" in said
    assert "Programs installed: radosgw, prometheus" in said
    # It is not tried again at each run of the tests, only when somebody asks for it.
    asked = machine.log()
    assert "apt-get failed the last time" in machine.run("--tried", str(tried))
    assert machine.log() == asked
    (machine.folder / "absent-chromium").unlink()
    assert "Programs installed: chromium" in machine.run("--tried", str(tried), "--again")


def test_where_there_is_no_apt_get_the_tests_go_on(machine: Machine) -> None:
    (machine.bin / "apt-get").unlink()
    said = machine.run()
    assert "There is no apt-get here. In Debian the packages are: radosgw ceph-mon" in said
    assert said.count("Program missing: ") == sum(not row.slow for row in TABLE)


def test_who_is_not_root_is_told_what_to_install(machine: Machine) -> None:
    if (reason := why_missing("setpriv")) is not None:
        pytest.skip(reason)
    as_nobody = str(shutil.which("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups"
    # The interpreter and the tree may be closed to others, so it keeps the right to read.
    capability = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
    step = machine.start(under=(*as_nobody, *capability))
    said, _ = step.communicate(timeout=WITHIN_S)
    assert step.returncode == 0, said
    assert "Only root can install them: apt-get install --no-install-recommends radosgw" in said
    assert machine.log() == []


@pytest.mark.parametrize("how", ["a journal", "a package that is half configured"])
def test_a_dpkg_that_was_interrupted_is_named_with_its_remedy(machine: Machine, how: str) -> None:
    if how == "a journal":
        (machine.folder / "root/var/lib/dpkg/updates/0001").touch()
    else:
        (machine.folder / "audit").write_text("The following packages are only half configured:\n")
    said = machine.run()
    assert "run `dpkg --configure -a` as root, then `make programs`" in said
    assert machine.log() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_dpkg_and_then_ends_the_run(
    machine: Machine, signum: signal.Signals
) -> None:
    (machine.folder / "install-waits").touch()
    step = machine.start()
    machine.has("install waits")
    os.killpg(step.pid, signum)  # as a terminal does
    assert step.stdout is not None
    wait_for_line(step, "This ends as soon as dpkg has finished")
    (machine.folder / "install-waits").unlink()
    step.communicate(timeout=WITHIN_S)
    assert step.returncode == 128 + signum
    assert machine.log()[-1] == "installed"


def test_not_even_a_killed_step_and_a_reader_that_left_end_dpkg(machine: Machine) -> None:
    (machine.folder / "install-waits").touch()
    step = machine.start()
    machine.has("install waits")
    assert step.stdout is not None
    step.stdout.close()
    os.killpg(step.pid, signal.SIGKILL)
    step.wait(WITHIN_S)
    (machine.folder / "install-waits").unlink()
    machine.has("installed")


def test_a_download_ends_at_once(machine: Machine) -> None:
    (machine.folder / "download-waits").touch()
    step = machine.start()
    machine.has("download waits")
    os.killpg(step.pid, signal.SIGINT)
    step.communicate(timeout=WITHIN_S)
    assert step.returncode == 128 + signal.SIGINT
    assert machine.log()[-1] == "download was ended"


def test_a_make_that_is_ended_waits_for_dpkg_too(machine: Machine) -> None:
    if (make := shutil.which("make")) is None:
        pytest.skip("make is not installed")
    (machine.folder / "step.py").write_text(STEP)
    (machine.folder / "Makefile").write_text(
        f"all:\n\t@{sys.executable} -B {machine.folder}/step.py --root {machine.folder}/root\n"
    )
    (machine.folder / "install-waits").touch()
    step = machine.start(command=[make, "-f", str(machine.folder / "Makefile")])
    machine.has("install waits")
    step.terminate()
    wait_for_line(step, "This ends as soon as dpkg has finished")
    (machine.folder / "install-waits").unlink()
    step.communicate(timeout=WITHIN_S)
    assert step.returncode != 0
    assert machine.log()[-1] == "installed"


def test_tests_only_look_and_only_for_what_is_in_the_table() -> None:
    for path in PYTHON_FILES:
        name, text = str(path.relative_to(ROOT)), path.read_text()
        may_call_apt = name in INSTALLERS | DOWNLOADERS
        assert may_call_apt or "apt-get" not in text, f"{name} installs something"
        assert "shutil.which" not in text or name in LOOKERS, f"{name}: use why_missing"
        for quoted in re.findall(r'\b(?:why_missing|need)\(("[^)]*")\)', text):
            for command in re.findall(r'"([\w.-]+)"', quoted):
                assert command in COMMANDS, f"{name} needs {command}: add it to {TABLE_IS_IN}"
    for row in TABLE:
        for user in row.used_by:
            assert (ROOT / user).exists(), f"{row.commands} are not used by {user}"


@pytest.mark.parametrize("name", ["dpkg/lock-frontend", "apt/lists/lock"])
def test_a_lock_that_another_apt_holds_is_waited_for(machine: Machine, name: str) -> None:
    lock = machine.folder / "root/var/lib" / name
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        step = machine.start()
        line = wait_for_line(step, "Waiting")
        assert f"15 minutes at most: process {os.getpid()} (" in line
        assert f"holds /var/lib/{name}" in line
        assert machine.log() == []
    said, _ = step.communicate(timeout=WITHIN_S)
    assert step.returncode == 0
    assert "Programs installed: radosgw" in said


def wait_for_line(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"the program ended without saying {start!r}")
