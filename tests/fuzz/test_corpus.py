"""Does every parser read or refuse every input of the corpus, and execute none of them?

The corpus has the committed seeds and the inputs that atheris found, as ordinary tests. Promises 5,
7 and 10.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.parser import CORPUS, Parser
from tests.fuzz.parsers import PARSERS
from tests.fuzz.ticker import allowed_s, held_s, holds_too_long

ROOT = Path(__file__).parents[2]
# Far more than any input takes; `make fuzz` allows as much.
MAX_INPUT_KIB = 512 * 1024


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CACHESVC_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("parser", PARSERS.values(), ids=lambda parser: parser.name)
def test_every_input_is_read_or_refused(parser: Parser) -> None:
    for path in parser.inputs():
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        is_accepted = parser.attempt(path.read_bytes())
        used_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        assert used_kib < MAX_INPUT_KIB, path.name
        # Otherwise a parser that refuses everything would pass, and a fuzzer would never get
        # inside.
        if path.name.startswith("good"):
            assert is_accepted, path.name
        if path.name.startswith("code-"):
            assert not is_accepted, path.name


@pytest.mark.parametrize("parser", PARSERS.values(), ids=lambda parser: parser.name)
def test_no_input_holds_others_up_for_longer_than_three_times_a_legal_image(
    parser: Parser,
) -> None:
    for path in parser.inputs():
        data = path.read_bytes()
        held = holds_too_long(lambda data=data: parser.attempt(data))
        assert held is None, f"{path.name}: {held} s, and {allowed_s()} are allowed"


def test_a_ticking_thread_sees_what_holds_it_up() -> None:
    digits = "9" * 200_000  # one conversion never gives the interpreter to another thread

    def hold() -> None:
        sys.set_int_max_str_digits(0)
        try:
            int(digits)
        finally:
            sys.set_int_max_str_digits(4300)

    assert held_s(hold) > allowed_s()
    assert holds_too_long(lambda: None) is None


def test_every_parser_has_inputs_and_every_input_a_parser() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(PARSERS)
    assert all(parser.inputs() for parser in PARSERS.values())


def _read_all(folder: Path, *options: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.read_all", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["inputs"] > 0
    did: dict[str, int] = report["did"]
    return did


def test_nothing_in_the_corpus_is_executed(tmp_path: Path) -> None:
    # Each input is read by each parser, the client's too: an archive as an image, an image as a
    # blob.
    assert _read_all(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_naive_reader_is_seen_to_execute_it(tmp_path: Path) -> None:
    did = _read_all(tmp_path, "--naive")
    assert did.keys() >= {"compile", "exec", "os.system", "pickle.find_class"}
    assert [path.name for path in tmp_path.iterdir()] == ["cachesvc-was-here"]
