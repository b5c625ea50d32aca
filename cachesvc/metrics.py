"""What is counted, and under which name? Only this module imports prometheus_client.

Labels come from closed sets and every series exists from the start, at zero: no
key, user or path is ever a label. The catalogue is docs/metrics.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cachesvc.core.call_tally import CallTally, RpcTally
from cachesvc.core.tier import Tier

CONTENT_TYPE = CONTENT_TYPE_LATEST
TIERS = tuple(Tier)
SERVED_BY = ("local", *TIERS)
UNSERVED = ("not_found", "failed")
STAGES = ("origin", "decode", "l1_write", "l2_commit")
RELOADED = ("grpc_tls", "http_tls", "access")
LISTENERS = ("grpc", "http")
ORIGIN_OUTCOMES = ("ok", "not_found", "cancelled", "unavailable", "denied", "corrupt")
# RPCs that callers wait for; the others are only counted.
TIMED_RPCS = ("GetHuman", "GetGarment", "GetText", "GetTryOn", "Put", "Invalidate")
_LEAVES_MEMORY_BY = (
    "entries_limit",
    "bytes_limit",
    "tmpfs_full",
    "descriptors",
    "expired",
    "invalidated",
    "replaced",
)
_LEAVES_DISK_BY = ("disk_space", "expired")
# Few buckets for each histogram: all metrics together may have 300 series.
# CachesvcFillsSlow asks for 3 s: between two bounds a percentile is a guess.
_LATENCY_S = (0.0005, 0.003, 0.02, 0.1, 0.5, 3.0, 10.0)
_STAGE_S = (0.003, 0.03, 0.1, 0.5, 2.0, 10.0)
_COMMIT_S = (0.0005, 0.002, 0.01, 0.05, 0.2, 1.0)
_AGE_S = (60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 96 * 3600.0)

# (metric name, documentation, label name, {label value: reading})
GaugeReading = tuple[str, str, str, dict[str, float]]


class Metrics:
    """Every metric of one daemon, on a registry of its own."""

    def __init__(self, version: str) -> None:
        # These would be 50 series that all say when the daemon started.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="cachesvc", registry=self.registry)
        make = _Maker(self.registry)
        self.requests = make.counter(
            "requests", "Gets answered, by the tier that served.", "tier", SERVED_BY
        )
        self.unserved_requests = make.counter(
            "unserved_requests",
            "Gets that got no entry: the origin has none, or they failed.",
            "outcome",
            UNSERVED,
        )
        self.request_seconds = make.histogram(
            "request_seconds", "Time to find an entry.", "tier", TIERS, _LATENCY_S
        )
        self.fills = make.counter("fills", "Sets of origin reads started.")
        self.absent_fills = make.counter(
            "absent_fills", "Sets of origin reads that found no object: an answer, no failure."
        )
        self.failed_fills = make.counter("failed_fills", "Sets of origin reads that failed.")
        self.fenced_fills = make.counter(
            "fenced_fills", "Flights that lost to an invalidation or a Put."
        )
        self.stage_seconds = make.histogram(
            "fill_stage_seconds", "Time of each stage of a fill.", "stage", STAGES, _STAGE_S
        )
        self.origin_requests = make.counter(
            "origin_requests", "Objects asked of the origin.", "outcome", ORIGIN_OUTCOMES
        )
        self.revalidations = make.counter(
            "revalidations",
            "Expired entries checked by conditional requests.",
            "outcome",
            ("unchanged", "changed"),
        )
        self.stale_served = make.counter(
            "stale_served", "Expired entries served because the origin could not be asked."
        )
        self.coalesced = make.counter(
            "coalesced_waiters", "Gets that joined a flight under way (V2: stampede_prevented)."
        )
        self.invalidations = make.counter("invalidations", "Acknowledged invalidations.")
        self.failed_invalidations = make.counter(
            "failed_invalidations", "Invalidations that could not be acknowledged."
        )
        self.invalidation_seconds = make.histogram(
            "invalidation_seconds", "Time to a durable invalidation.", None, (), _COMMIT_S
        )
        self.puts = make.counter("puts", "Acknowledged Puts.")
        self.memory_removals = make.counter(
            "memory_removals", "Entries that left L1.", "reason", _LEAVES_MEMORY_BY
        )
        self.disk_removals = make.counter(
            "disk_removals", "Entries that left L2.", "reason", _LEAVES_DISK_BY
        )
        self.eviction_age_seconds = make.histogram(
            "eviction_age_seconds", "Age at eviction.", "tier", (Tier.MEMORY, Tier.DISK), _AGE_S
        )
        self.damaged = make.counter("damaged_entries", "L2 entries that failed their check.")
        self.decode_failures = make.counter(
            "decode_failures", "Origin objects that the decoders refused."
        )
        self.disk_rejections = make.counter(
            "disk_rejections", "Entries that L2 did not admit or could not write."
        )
        self.disk_refused_writes = make.counter(
            "disk_refused_writes",
            "Writes refused for lack of bytes or inodes; L2 makes room once for each.",
        )
        self.disk_written_bytes = make.counter("disk_written_bytes", "Bytes written to L2.")
        self.catalog_resets = make.counter(
            "catalog_resets", "Times a damaged catalog was set aside."
        )
        self.reload_failures = make.counter(
            "reload_failures",
            "Changed files of certificates or grants that cannot be used; the old stay in force.",
            "what",
            RELOADED,
        )
        self.handshake_failures = make.counter(
            "handshake_failures",
            "TLS handshakes that failed: another protocol, or certificates that are refused.",
            "listener",
            LISTENERS,
        )
        self.foreign_names = make.gauge(
            "disk_foreign_names", "Names under the L2 root that are not the daemon's."
        )
        self.memory_limit = make.gauge(
            "cgroup_memory_limit_bytes",
            "Memory limit of the daemon's cgroup; +Inf if none.",
        )
        # The process collector's start time cannot be trusted if systemd hides /proc/stat.
        make.gauge("start_time_seconds", "Unix time of the start.").set_to_current_time()
        build = Gauge("cachesvc_build_info", "Always 1.", ["version"], registry=self.registry)
        build.labels(version=version).set(1)

    def read_calls_from(self, tally: CallTally) -> None:
        """Show the calls of a server at each scrape."""
        self.registry.register(_CallCollector(tally))

    def read_dropped_lines_from(self, read: Callable[[], int]) -> None:
        """Show at each scrape how many log lines were lost."""
        self.registry.register(_DroppedLines(read))

    def render(self, gauges: Iterable[GaugeReading]) -> bytes:
        """Return the exposition text of the registry and of `gauges`.

        Any thread may call it: `gauges` were read on the loop.
        """
        return generate_latest(self.registry) + generate_latest(_Readings(gauges))

    def value(self, name: str, **labels: str) -> int:
        """Return a counter's value; `name` as exposed, without `cachesvc_` and `_total`."""
        return self._sample(f"cachesvc_{name}_total", labels)

    def gauge(self, name: str) -> int:
        """Return the value of a gauge without labels; `name` as exposed, without `cachesvc_`."""
        return self._sample(f"cachesvc_{name}", {})

    def _sample(self, name: str, labels: dict[str, str]) -> int:
        # Collect this metric only: the whole registry takes up to 0.4 ms.
        for metric in self.registry.restricted_registry([name]).collect():
            for sample in metric.samples:
                if sample.name == name and sample.labels == labels:
                    return int(sample.value)
        raise AssertionError(name)


class Counted:
    """A counter, or a counter for each value of its label, bound once: 0.5 us an increment."""

    __slots__ = ("_by_label", "_plain")

    def __init__(self, counter: Counter, label: str | None, values: Iterable[str]) -> None:
        self._plain = None if label else counter
        self._by_label = {v: counter.labels(**{label: v}) for v in values} if label else {}

    def inc(self, label: str | None = None, amount: float = 1) -> None:
        (self._plain if label is None else self._by_label[label]).inc(amount)  # type: ignore[union-attr]


class Distribution(NamedTuple):
    """A histogram's state: (upper bound in seconds, count up to it), the last bound infinite."""

    buckets: tuple[tuple[float, int], ...]
    sum_s: float


class Timed:
    """A histogram, or a histogram for each value of its label, bound once."""

    __slots__ = ("_by_label", "_histogram", "_plain")

    def __init__(self, histogram: Histogram, label: str | None, values: Iterable[str]) -> None:
        self._histogram = histogram
        self._plain = None if label else histogram
        self._by_label = {v: histogram.labels(**{label: v}) for v in values} if label else {}

    def observe(self, seconds: float, label: str | None = None) -> None:
        (self._plain if label is None else self._by_label[label]).observe(seconds)  # type: ignore[union-attr]

    def read(self, label: str) -> Distribution:
        """Return the histogram of `label` since the start."""
        buckets, sum_s = [], 0.0
        (family,) = self._by_label[label].collect()
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                buckets.append((float(sample.labels["le"]), int(sample.value)))
            elif sample.name.endswith("_sum"):
                sum_s = sample.value
        return Distribution(tuple(buckets), sum_s)


class _Maker:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(
        self, name: str, text: str, label: str | None = None, values: Iterable[str] = ()
    ) -> Counted:
        labels = [label] if label else []
        metric = Counter(f"cachesvc_{name}", text, labels, registry=self._registry)
        return Counted(metric, label, values)

    def histogram(
        self,
        name: str,
        text: str,
        label: str | None,
        values: Iterable[str],
        buckets: tuple[float, ...],
    ) -> Timed:
        labels = [label] if label else []
        metric = Histogram(
            f"cachesvc_{name}", text, labels, registry=self._registry, buckets=buckets
        )
        return Timed(metric, label, values)

    def gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"cachesvc_{name}", text, registry=self._registry)


class _Readings(Collector):
    """Gauges that were read for one scrape, so that no code has to keep them up to date."""

    def __init__(self, gauges: Iterable[GaugeReading]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, text, label, readings in self._gauges:
            family = GaugeMetricFamily(f"cachesvc_{name}", text, labels=[label] if label else [])
            for value, reading in readings.items():
                family.add_metric([value] if label else [], reading)
            yield family


class _DroppedLines(Collector):
    """Shows how many lines the log dropped."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        name, text = "cachesvc_log_lines_dropped", "Log lines that were dropped."
        yield CounterMetricFamily(name, text, value=self._read())


class _CallCollector(Collector):
    """Shows a CallTally, whose plain numbers keep the counting of each call cheap."""

    def __init__(self, tally: CallTally) -> None:
        self._tally = tally

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        tally = self._tally
        calls = CounterMetricFamily(
            "cachesvc_calls",
            "gRPC calls that ended, by what that means.",
            labels=["rpc", "outcome"],
        )
        for rpc in tally.by_rpc:
            for outcome, ended in tally.by_outcome(rpc).items():
                calls.add_metric([rpc, outcome], ended)
        yield calls
        statuses = CounterMetricFamily(
            "cachesvc_call_statuses", "gRPC calls that ended, by status.", labels=["code"]
        )
        for code, ended in tally.by_code().items():
            statuses.add_metric([code], ended)
        yield statuses
        seconds = HistogramMetricFamily(
            "cachesvc_call_seconds", "Time in the handler of a gRPC call.", labels=["rpc"]
        )
        for rpc in TIMED_RPCS:
            one = tally.by_rpc[rpc]
            seconds.add_metric([rpc], _cumulative(one), one.total_s)
        yield seconds


def _cumulative(rpc: RpcTally) -> list[tuple[str, float]]:
    """Return the buckets as a scrape shows them: each includes the buckets before it."""
    bounds = [*(str(bound_s) for bound_s in rpc.bounds_s), "+Inf"]
    return list(zip(bounds, itertools.accumulate(rpc.buckets), strict=True))
