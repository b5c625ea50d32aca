// What does an operator ask first? The answers, from top to bottom.
// Every query works without the recording rules. What is named here is in docs/metrics.md.

import {
  type Dashboard,
  DashboardCursorSync,
  VariableHide,
  VariableRefresh,
  VariableSort,
} from "@grafana/schema";

import { DATASOURCE, graph, type Query, stat, target } from "./panels.js";
import { place, type Row } from "./rows.js";

const HERE = 'job="cachesvc", instance=~"$instance"';
const BY_HOST = "{{instance}}";

/** A metric of the hosts that are shown; `labels` as in PromQL. */
function of(metric: string, labels = ""): string {
  return `cachesvc_${metric}{${HERE}${labels && `, ${labels}`}}`;
}

function rate(metric: string, labels = ""): string {
  return `rate(${of(metric, labels)}[$__rate_interval])`;
}

/** Per second, summed over everything but `by`. */
function perSecond(metric: string, by: string, labels = ""): string {
  return `sum by (${by}) (${rate(metric, labels)})`;
}

/** Nothing asked for is a share of 0, not of nothing. */
function share(part: string, whole: string): string {
  return `${part} / clamp_min(${whole}, 1e-9)`;
}

function quantile(q: number, histogram: string, by: string): string {
  return `histogram_quantile(${q}, sum by (${by}, le) (${rate(`${histogram}_bucket`)}))`;
}

function asked(expr: string, legend: string): Query[] {
  return [{ expr, legend }];
}

const REQUESTS = perSecond("requests_total", "instance");
const HITS = perSecond("requests_total", "instance", 'tier!="origin"');
const MEMORY_HITS = perSecond("requests_total", "instance", 'tier=~"local|memory"');
const ALL_GETS = `(${REQUESTS} + ${perSecond("unserved_requests_total", "instance")})`;
const FAILED = perSecond("unserved_requests_total", "instance", 'outcome="failed"');
const L1_BYTES = `sum by (instance) (${of("memory_bytes")})`;
const L1_MAX = `sum by (instance) (${of("tier_max_bytes", 'tier="memory"')})`;
const L2_BYTES = `sum by (instance) (${of("disk_bytes")})`;
const L2_MAX = `sum by (instance) (${of("tier_max_bytes", 'tier="disk"')})`;

// Marked in every graph: L1 is empty then, and counters begin again.
const STARTS = target({ expr: `changes(${of("start_time_seconds")}[1m]) > 0`, legend: BY_HOST });

const now: Row = {
  title: "Now",
  width: 3,
  height: 4,
  panels: [
    stat({
      title: "Ready",
      description: "1 while /readyz says so. Runbook: CachesvcNotReady.",
      unit: "none",
      badBelow: 1,
      queries: asked(`min by (instance) (${of("ready")})`, BY_HOST),
    }),
    stat({
      title: "Hits",
      description: "Share of the Gets that did not ask the origin, including workers' local hits.",
      unit: "percentunit",
      max: 1,
      queries: asked(share(HITS, REQUESTS), BY_HOST),
    }),
    stat({
      title: "Gets",
      description: "Entries served per second.",
      unit: "reqps",
      queries: asked(REQUESTS, BY_HOST),
    }),
    stat({
      title: "Failed Gets",
      description: "Share of the Gets that found neither an entry nor an absence. Runbook: CachesvcRequestsFailing.",
      unit: "percentunit",
      warnAt: 0.01,
      badAt: 0.05,
      queries: asked(share(FAILED, ALL_GETS), BY_HOST),
    }),
    stat({
      title: "Not durable",
      description: "Invalidations that the disk has not made final yet. Runbook: CachesvcInvalidationsNotDurable.",
      unit: "none",
      badAt: 1,
      queries: asked(
        `max by (instance) (${of("queue_depth", 'queue="unfinished_invalidations"')})`,
        BY_HOST,
      ),
    }),
    stat({
      title: "Origin not asked",
      description: "1 while the circuit is open: misses fail at once. Runbook: CachesvcOriginCircuitOpen.",
      unit: "none",
      badAt: 1,
      queries: asked(`max by (instance) (${of("origin_circuit_open")})`, BY_HOST),
    }),
    stat({
      title: "L1 full",
      description: "Entries and the bytes that readers still hold, as a share of l1.max_bytes. A full L1 is normal.",
      unit: "percentunit",
      max: 1,
      queries: asked(
        `(${L1_BYTES} + max by (instance) (${of("held_bytes")})) / ${L1_MAX}`,
        BY_HOST,
      ),
    }),
    stat({
      title: "L2 full",
      description: "Share of l2.max_bytes. Eviction keeps it below the high watermark.",
      unit: "percentunit",
      max: 1,
      warnAt: 0.97,
      queries: asked(`${L2_BYTES} / ${L2_MAX}`, BY_HOST),
    }),
  ],
};

const gets: Row = {
  title: "Gets: which tier, how fast, how many fail",
  width: 8,
  height: 8,
  panels: [
    graph({
      title: "Gets by the tier that served",
      description: "local: from a worker's own mapping, without a call.",
      unit: "reqps",
      stacked: true,
      queries: asked(perSecond("requests_total", "instance, tier"), "{{instance}} {{tier}}"),
    }),
    graph({
      title: "Hit ratio",
      description: "Share of Gets answered without the origin, and from memory alone.",
      unit: "percentunit",
      max: 1,
      queries: [
        { expr: share(HITS, REQUESTS), legend: "{{instance}} all" },
        { expr: share(MEMORY_HITS, REQUESTS), legend: "{{instance}} memory" },
      ],
    }),
    graph({
      title: "Time to find an entry, p95",
      description: "In the daemon, without the transfer to the caller. A gap means no Gets.",
      unit: "s",
      queries: asked(quantile(0.95, "request_seconds", "instance, tier"), "{{instance}} {{tier}}"),
    }),
    graph({
      title: "Time of a call, p95",
      description: "In the handler, before the answer is serialized and sent.",
      unit: "s",
      queries: asked(quantile(0.95, "call_seconds", "instance, rpc"), "{{instance}} {{rpc}}"),
    }),
    graph({
      title: "Calls that failed",
      description: "Failures of the daemon or the origin, by RPC.",
      unit: "reqps",
      queries: asked(
        perSecond("calls_total", "instance, rpc", 'outcome="failed"'),
        "{{instance}} {{rpc}}",
      ),
    }),
    graph({
      title: "Statuses other than OK",
      description: "All RPCs together.",
      unit: "reqps",
      stacked: true,
      queries: asked(
        perSecond("call_statuses_total", "instance, code", 'code!="OK"'),
        "{{instance}} {{code}}",
      ),
    }),
  ],
};

const fills: Row = {
  title: "Fills and the origin",
  width: 8,
  height: 8,
  panels: [
    graph({
      title: "Stages of a fill, p95",
      description: "origin: the read of one object; decode: its decoding; l1_write; l2_commit: after the answer.",
      unit: "s",
      queries: asked(
        quantile(0.95, "fill_stage_seconds", "instance, stage"),
        "{{instance}} {{stage}}",
      ),
    }),
    graph({
      title: "Origin requests by outcome",
      description: "not_found: an absence. cancelled: another member's answer decided the fill. denied: credentials or policy. unavailable: no usable answer.",
      unit: "reqps",
      stacked: true,
      queries: asked(
        perSecond("origin_requests_total", "instance, outcome"),
        "{{instance}} {{outcome}}",
      ),
    }),
    graph({
      title: "Fills by their end",
      description: "absent: the origin has no such object. coalesced: Gets that joined a flight. fenced: dropped because of a newer change.",
      unit: "cps",
      queries: [
        { expr: perSecond("fills_total", "instance"), legend: "{{instance}} started" },
        { expr: perSecond("absent_fills_total", "instance"), legend: "{{instance}} absent" },
        { expr: perSecond("failed_fills_total", "instance"), legend: "{{instance}} failed" },
        { expr: perSecond("fenced_fills_total", "instance"), legend: "{{instance}} fenced" },
        { expr: perSecond("coalesced_waiters_total", "instance"), legend: "{{instance}} coalesced" },
      ],
    }),
    graph({
      title: "Expired entries",
      description: "unchanged: renewed without a download. stale: served because the origin did not answer.",
      unit: "cps",
      queries: [
        {
          expr: perSecond("revalidations_total", "instance, outcome"),
          legend: "{{instance}} {{outcome}}",
        },
        { expr: perSecond("stale_served_total", "instance"), legend: "{{instance}} stale" },
      ],
    }),
    graph({
      title: "Objects that could not be decoded",
      description: "Runbook: CachesvcDecodeFailing.",
      unit: "cps",
      queries: asked(perSecond("decode_failures_total", "instance"), BY_HOST),
    }),
    graph({
      title: "Flights and absences",
      description: "Flights under way and their limit; remembered absences.",
      unit: "none",
      queries: [
        { expr: of("queue_depth", 'queue="flights"'), legend: "{{instance}} flights" },
        { expr: of("queue_max_depth", 'queue="flights"'), legend: "{{instance}} limit" },
        { expr: of("absences"), legend: "{{instance}} absences" },
      ],
    }),
  ],
};

const changes: Row = {
  title: "Changes: are invalidations final?",
  width: 8,
  height: 8,
  panels: [
    graph({
      title: "Invalidations and Puts",
      description: "Acknowledged per second, and invalidations that failed.",
      unit: "cps",
      queries: [
        { expr: perSecond("invalidations_total", "instance"), legend: "{{instance}} invalidations" },
        {
          expr: perSecond("failed_invalidations_total", "instance"),
          legend: "{{instance}} invalidations that failed",
        },
        { expr: perSecond("puts_total", "instance"), legend: "{{instance}} puts" },
      ],
    }),
    graph({
      title: "Time to a durable invalidation",
      description: "From the queued invalidation to the acknowledgement.",
      unit: "s",
      queries: [
        { expr: quantile(0.5, "invalidation_seconds", "instance"), legend: "{{instance}} p50" },
        { expr: quantile(0.95, "invalidation_seconds", "instance"), legend: "{{instance}} p95" },
      ],
    }),
    graph({
      title: "Invalidations under way",
      description: "tombstones: not durable yet. unfinished: the disk refuses them; act at once.",
      unit: "none",
      queries: asked(
        of("queue_depth", 'queue=~"tombstones|unfinished_invalidations"'),
        "{{instance}} {{queue}}",
      ),
    }),
  ],
};

const tiers: Row = {
  title: "Tiers: how full, what leaves, what breaks",
  width: 8,
  height: 8,
  panels: [
    graph({
      title: "L1: bytes by namespace",
      description: "held: evicted, but readers still have it. spare: files made for the next misses. Both count against the limit.",
      unit: "bytes",
      stacked: true,
      queries: [
        { expr: of("memory_bytes"), legend: "{{instance}} {{namespace}}" },
        { expr: of("held_bytes"), legend: "{{instance}} held" },
        { expr: of("spare_bytes"), legend: "{{instance}} spare" },
      ],
    }),
    graph({
      title: "L1: entries, as a share of the namespace's limit",
      description: "At 100 % each new entry evicts the least recently used one.",
      unit: "percentunit",
      max: 1,
      queries: asked(
        `${of("memory_entries")} / ${of("memory_max_entries")}`,
        "{{instance}} {{namespace}}",
      ),
    }),
    graph({
      title: "Left L1",
      description: "By reason. entries_limit, bytes_limit, tmpfs_full and descriptors are evictions.",
      unit: "cps",
      stacked: true,
      queries: asked(
        perSecond("memory_removals_total", "instance, reason"),
        "{{instance}} {{reason}}",
      ),
    }),
    graph({
      title: "L2: bytes by namespace",
      description: "And the high watermark, above which entries are evicted.",
      unit: "bytes",
      queries: [
        { expr: of("disk_bytes"), legend: "{{instance}} {{namespace}}" },
        { expr: L2_BYTES, legend: "{{instance}} all" },
        { expr: of("disk_high_watermark_bytes"), legend: "{{instance}} high watermark" },
      ],
    }),
    graph({
      title: "Free space of the file systems",
      description: "Whichever program uses the rest. Below the floor L2 admits nothing.",
      unit: "bytes",
      queries: [
        { expr: of("filesystem_free_bytes"), legend: "{{instance}} {{tier}}" },
        { expr: of("disk_floor_bytes"), legend: "{{instance}} floor" },
      ],
    }),
    graph({
      title: "Left L2",
      description: "Evicted to make room, or expired.",
      unit: "cps",
      stacked: true,
      queries: asked(
        perSecond("disk_removals_total", "instance, reason"),
        "{{instance}} {{reason}}",
      ),
    }),
    graph({
      title: "Age at eviction, mean",
      description: "An age well below the TTL means that the tier is too small. 0: nothing was evicted.",
      unit: "s",
      queries: asked(
        share(
          perSecond("eviction_age_seconds_sum", "instance, tier"),
          perSecond("eviction_age_seconds_count", "instance, tier"),
        ),
        "{{instance}} {{tier}}",
      ),
    }),
    graph({
      title: "Written to L2",
      description: "Bytes per second, which wear the SSD.",
      unit: "Bps",
      queries: asked(perSecond("disk_written_bytes_total", "instance"), BY_HOST),
    }),
    graph({
      title: "Damage and rejections",
      description: "Since the start. Runbook: CachesvcEntriesDamaged, CachesvcCatalogLost, CachesvcDiskRejecting.",
      unit: "none",
      queries: [
        { expr: of("damaged_entries_total"), legend: "{{instance}} damaged" },
        { expr: of("catalog_resets_total"), legend: "{{instance}} catalogs lost" },
        { expr: of("disk_rejections_total"), legend: "{{instance}} rejected" },
        { expr: of("disk_foreign_names"), legend: "{{instance}} foreign names" },
      ],
    }),
  ],
};

const daemon: Row = {
  title: "The daemon",
  width: 8,
  height: 8,
  panels: [
    graph({
      title: "Lateness of the event loop",
      description: "The worst of the last 30 to 60 s. Runbook: CachesvcLoopLagging.",
      unit: "s",
      queries: asked(of("loop_lag_seconds"), BY_HOST),
    }),
    graph({
      title: "Queues",
      description: "The catalog's writes; Puts and their limit.",
      unit: "none",
      queries: [
        { expr: of("queue_depth", 'queue=~"catalog|puts"'), legend: "{{instance}} {{queue}}" },
        { expr: of("queue_max_depth", 'queue="puts"'), legend: "{{instance}} limit of puts" },
      ],
    }),
    graph({
      title: "Waiting to be written to L2",
      description: "Entries beyond the limit stay in L1 only.",
      unit: "bytes",
      queries: [
        { expr: of("disk_pending_bytes"), legend: "{{instance}} waiting" },
        { expr: of("disk_pending_max_bytes"), legend: "{{instance}} limit" },
      ],
    }),
    graph({
      title: "Cores in use",
      description: "Decoding uses most of them.",
      unit: "short",
      queries: asked(rate("process_cpu_seconds_total"), BY_HOST),
    }),
    graph({
      title: "Resident memory",
      description: "The process's own memory, and its mappings of L1's files.",
      unit: "bytes",
      queries: asked(of("process_resident_memory_bytes"), BY_HOST),
    }),
    graph({
      title: "Descriptors in use",
      description: "Share of their limit. Runbook: CachesvcDescriptorsLow.",
      unit: "percentunit",
      max: 1,
      queries: asked(`${of("process_open_fds")} / ${of("process_max_fds")}`, BY_HOST),
    }),
  ],
};

export const dashboard: Dashboard = {
  uid: "cachesvc",
  title: "cachesvc",
  description: "One cache on each GPU host. Alerts: docs/runbook.md. Metrics: docs/metrics.md.",
  tags: ["cachesvc"],
  schemaVersion: 39,
  editable: true,
  graphTooltip: DashboardCursorSync.Crosshair,
  timezone: "browser",
  time: { from: "now-3h", to: "now" },
  refresh: "30s",
  annotations: {
    list: [
      {
        name: "Starts",
        enable: true,
        iconColor: "blue",
        datasource: DATASOURCE,
        target: STARTS,
      },
    ],
  },
  templating: {
    list: [
      {
        name: "datasource",
        type: "datasource",
        label: "Prometheus",
        query: "prometheus",
        refresh: VariableRefresh.onDashboardLoad,
        hide: VariableHide.dontHide,
      },
      {
        name: "instance",
        type: "query",
        label: "Host",
        datasource: DATASOURCE,
        query: 'label_values(cachesvc_build_info{job="cachesvc"}, instance)',
        refresh: VariableRefresh.onTimeRangeChanged,
        sort: VariableSort.alphabeticalAsc,
        multi: true,
        includeAll: true,
        allValue: ".+",
        current: { selected: true, text: ["All"], value: ["$__all"] },
        hide: VariableHide.dontHide,
      },
    ],
  },
  panels: place([now, gets, fills, changes, tiers, daemon]),
};
