"""The product's claims about its own speed, checked against a run: ratios, never milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.rounds import Outcome

Figure = tuple[str, str]  # workload, row


@dataclass(frozen=True, slots=True)
class Claim:
    """`row`'s p50 is at most `limit` times that of `against`, or at most `slack_us` above it."""

    text: str
    row: Figure
    against: Figure
    limit: float
    slack_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a claim in one run."""

    claim: Claim
    ratio: float
    above_us: float

    @property
    def holds(self) -> bool:
        return self.ratio <= self.claim.limit or self.above_us <= self.claim.slack_us


CLAIMS = (
    Claim(
        "a local hit costs what mapping the file by hand costs",
        row=("human", "local"),
        against=("human", "floor"),
        limit=1.3,
        slack_us=5.0,
    ),
    Claim(
        "with one read of every byte too",
        row=("human", "local+read"),
        against=("human", "floor+read"),
        limit=1.1,
    ),
    Claim(
        "it costs less than half of ray.get",
        row=("human", "local"),
        against=("human", "ray"),
        limit=0.4,
    ),
    # A tenth more, because two medians of the same thing may differ by that much.
    Claim(
        "untouched, it does not grow with the entry: a person against a text",
        row=("human", "local-untouched"),
        against=("text", "local-untouched"),
        limit=1.1,
    ),
    Claim(
        "a first local Get costs little more than a bare round trip",
        row=("human", "first-local"),
        against=("human", "round-trip"),
        limit=1.5,
    ),
    Claim(
        "with grpc.aio at both ends too",
        row=("human", "first-local-aio"),
        against=("human", "round-trip-aio"),
        limit=1.5,
    ),
    Claim(
        "an inline Get costs no more than Redis",
        row=("human", "inline"),
        against=("human", "redis"),
        limit=1.0,
    ),
)


def judge(outcomes: Iterable[Outcome]) -> list[Verdict]:
    """Return a verdict for each claim whose two rows were measured."""
    p50s_us = {
        (outcome.workload, row.name): row.p50_ms * 1000
        for outcome in outcomes
        for row in outcome.rows
    }
    return [
        Verdict(
            claim,
            ratio=p50s_us[claim.row] / p50s_us[claim.against],
            above_us=p50s_us[claim.row] - p50s_us[claim.against],
        )
        for claim in CLAIMS
        if claim.row in p50s_us and claim.against in p50s_us
    ]
