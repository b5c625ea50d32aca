"""Draws a soak: private memory, descriptors, threads and tasks over the calls made."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot

from tests.soak.growth import Sample, slope_of
from tests.soak.run import Soaked

_COLOURS = {"cachesvc": "#0b6e4f", "echo": "#9aa0a6"}
_PANELS = (
    ("private memory, MB", lambda sample: sample.private_bytes / 1e6),
    ("descriptors", lambda sample: sample.descriptors),
    ("threads", lambda sample: sample.threads),
    ("tasks", lambda sample: sample.tasks),
)


def draw(soaked: Soaked, path: Path) -> None:
    figure, axes = pyplot.subplots(len(_PANELS), sharex=True, figsize=(9, 10))
    for axis, (title, value) in zip(axes, _PANELS, strict=True):
        for track in (soaked.daemon, soaked.echo):
            shown = [sample for sample in track.samples if title != "tasks" or sample.tasks]
            calls = [sample.calls / 1000 for sample in shown]
            axis.plot(
                calls,
                [value(sample) for sample in shown],
                color=_COLOURS[track.server],
                label=track.server,
                linewidth=1,
            )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
    for track in (soaked.daemon, soaked.echo):
        _draw_fit(axes[0], track.samples)
    axes[0].legend()
    axes[-1].set_xlabel("thousand calls")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_fit(axis: pyplot.Axes, samples: list[Sample]) -> None:
    """Draw the line that is judged, over the half that it is fitted to."""
    half = (samples[0].calls + samples[-1].calls) / 2
    second = [sample for sample in samples if sample.calls > half]
    slope = slope_of(samples).bytes_per_call
    middle_calls = sum(sample.calls for sample in second) / len(second)
    middle_bytes = sum(sample.private_bytes for sample in second) / len(second)
    ends = (second[0].calls, second[-1].calls)
    axis.plot(
        [end / 1000 for end in ends],
        [(middle_bytes + slope * (end - middle_calls)) / 1e6 for end in ends],
        color="#c8553d",
        linewidth=1.5,
        linestyle="--",
    )
