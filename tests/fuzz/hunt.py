"""One fuzzer's process: `python -m tests.fuzz.hunt PARSER [libFuzzer's options and folders]`.

atheris instruments our packages, Pillow's Python and the standard TOML reader while they are
imported. A crash is any error that is not one of the parser's refusals, an input of more than
MAX_INPUT_S of processor time, one that takes more than MAX_INPUT_BYTES of memory, or one that holds
the interpreter for longer than `ticker.py` allows. An input whose processor time is below that
limit cannot hold it for so long, and is not timed again.
"""

from __future__ import annotations

import os
import resource
import sys
import time

import atheris

# Of this thread: the time for which a busy machine lets it wait says nothing of the input.
MAX_INPUT_S = 2.0
MAX_INPUT_MIB = 512
# In real time, for an input that waits instead of working.
HANGS_AFTER_S = 60


class TooSlow(Exception):
    """One input took more processor time than MAX_INPUT_S."""


class HoldsOthersUp(Exception):
    """One input held the interpreter for longer than `ticker.py` allows."""


def main(name: str, options: list[str]) -> None:
    for variable in [key for key in os.environ if key.startswith("CACHESVC_")]:
        del os.environ[variable]
    with atheris.instrument_imports(include=["cachesvc", "cachesvc_client", "PIL", "tomllib"]):
        from tests.fuzz.parsers import PARSERS
        from tests.fuzz.ticker import allowed_s, holds_too_long
    parser = PARSERS[name]
    allowed = allowed_s()

    def try_one(data: bytes) -> None:
        started = time.thread_time()
        parser.attempt(data)
        spent = time.thread_time() - started
        if spent > MAX_INPUT_S:
            raise TooSlow(f"{spent:.1f} s for {len(data)} bytes")
        if spent > allowed and (held := holds_too_long(lambda: parser.attempt(data))) is not None:
            raise HoldsOthersUp(f"{held * 1e3:.1f} ms at once for {len(data)} bytes")

    # The memory of the imports is not the input's.
    used_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    limits = [
        f"-max_len={parser.max_bytes}",
        f"-timeout={HANGS_AFTER_S}",
        f"-rss_limit_mb={used_mib + MAX_INPUT_MIB}",
        f"-malloc_limit_mb={MAX_INPUT_MIB}",
    ]
    atheris.Setup([sys.argv[0], *limits, *options], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
