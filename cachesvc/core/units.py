"""How are sizes and times written by people, and shown to them?

One place for settings and the command line. A number without a unit has the unit that the name
of the setting says.
"""

from __future__ import annotations

import re
from decimal import Decimal

# Kubernetes writes 512Mi, people 512 MiB; K, M, G and T alone are decimal, as in Kubernetes.
_SIZE_UNITS = {"": 1, "b": 1, "byte": 1, "bytes": 1} | {
    letter + suffix: (1024 if "i" in suffix else 1000) ** power
    for power, letter in enumerate("kmgtp", start=1)
    for suffix in ("", "b", "i", "ib")
}
# Binary units first: most limits are whole numbers of them.
_SHOWN_UNITS = (
    *(
        (1 << (10 * power), f"{letter}iB")
        for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))
    ),
    *((1000**power, f"{letter}B") for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "k"))),
)
_TIME_UNITS_S = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_SHOWN_UNITS_MS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))
_NUMBER = r"([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)"
_SIZE = re.compile(rf"{_NUMBER}\s*([a-z]*)", re.IGNORECASE | re.ASCII)
_PART = re.compile(rf"{_NUMBER}\s*([a-z]+)\s*", re.ASCII)
_PARTS = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_PLAIN = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?", re.ASCII)
SIZE_EXAMPLES = "2GiB, 512Mi, 1.5GB or 1048576"
TIME_EXAMPLES = "90s, 15m, 1h30m, 24h or 7d"


def size_bytes(text: str) -> int:
    """Return the bytes of `2GiB`, `2 GB`, `512Mi`, `1.5GiB` or `1048576`. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"a size is bytes, or a number with a unit, such as {SIZE_EXAMPLES}")
    size = Decimal(match[1]) * factor
    if factor == 1 and size != int(size):
        raise ValueError(f"bytes are whole; write a unit, such as {SIZE_EXAMPLES}")
    return int(size)


def time_s(text: str, plain_unit_s: float = 1.0) -> float:
    """Return the seconds of `90s`, `1h30m`, `500ms`, or of a number of `plain_unit_s`.

    Raises ValueError.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text) * plain_unit_s
    parts = _PART.findall(text) if _PARTS.fullmatch(text) else []
    if not parts or any(unit not in _TIME_UNITS_S for _, unit in parts):
        raise ValueError(f"a time is a number with a unit, such as {TIME_EXAMPLES}")
    return float(sum(Decimal(number) * _TIME_UNITS_S[unit] for number, unit in parts))


def size_text(size: int) -> str:
    """Return a size that `size_bytes` reads as the same: `1 GiB`, `1.5 MiB`, `5001 bytes`."""
    for factor, unit in _SHOWN_UNITS:
        number = Decimal(size) / factor
        if 1 <= number < 1024 and (number * 10) % 1 == 0:
            return f"{number.normalize():f} {unit}"
    return f"{size} bytes"


def time_text(seconds: float) -> str:
    """Return a time that `time_s` reads as the same: `1h30m`, `1m30s`, `0s`."""
    left_ms, parts = round(seconds * 1000), ""
    if left_ms != seconds * 1000 or left_ms == 0:
        return f"{seconds:g}s"
    for unit_ms, unit in _SHOWN_UNITS_MS:
        count, left_ms = divmod(left_ms, unit_ms)
        parts += f"{count}{unit}" if count else ""
    return parts
