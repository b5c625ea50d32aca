// What happened between two readings? The daemon counts since its start; all rates,
// ratios and percentiles here are of differences.

const WINDOW_MS = 10 * 60 * 1000;
const KEEP_EVERY_MS = 4900;
// After so long without a reading (a sleeping laptop), charts show a gap instead of a mean.
const GAP_MS = 30 * 1000;
const TIERS = ["memory", "disk", "origin"];
// How a Get may end, the cheapest first.
const ENDS = [
  ["local_hits", "local", "worker's own copy"],
  ["memory_hits", "memory", "L1 memory"],
  ["disk_hits", "disk", "L2 disk"],
  ["origin_fills", "origin", "origin"],
  ["not_found", "not-found", "not found"],
  ["failed", "failed", "failed"],
];

function sampleOfHistory(sample) {
  return { ms: Date.parse(sample.at), requests: sample.requests, latency: sample.latency };
}

function sampleOfStatus(status) {
  const counts = Object.fromEntries(TIERS.map((tier) => [tier, status.latency[tier].buckets.map(([, n]) => n)]));
  return { ms: Date.parse(status.now), requests: status.requests, latency: counts };
}

// The readings of the last ten minutes, the oldest first; the last one is the newest there is.
class Samples {
  constructor() {
    this.kept = [];
    this.newest = null;
  }

  // Takes the daemon's samples: when the page is opened or shown again, and after a restart.
  replace(samples) {
    this.kept = samples;
    this.newest = samples.at(-1) ?? null;
  }

  add(sample) {
    // If the host's clock was set back, drop the samples that are later than now.
    this.kept = this.kept.filter(({ ms }) => ms < sample.ms);
    const last = this.kept.at(-1);
    if (!last || sample.ms - last.ms >= KEEP_EVERY_MS) this.kept.push(sample);
    this.newest = sample;
    this.kept = this.kept.filter(({ ms }) => ms > sample.ms - WINDOW_MS - KEEP_EVERY_MS);
  }

  get all() {
    const last = this.kept.at(-1);
    return this.newest && last !== this.newest ? [...this.kept, this.newest] : this.kept;
  }

  // What was counted over the last `ms`, or over as much of it as is known.
  over(ms) {
    if (!this.newest) return null;
    const before = this.all.find((sample) => sample.ms >= this.newest.ms - ms);
    return before === this.newest ? null : between(before, this.newest);
  }
}

function between(before, after) {
  const requests = {};
  for (const [name] of ENDS) requests[name] = Math.max(0, after.requests[name] - before.requests[name]);
  const buckets = {};
  for (const tier of TIERS) buckets[tier] = after.latency[tier].map((n, i) => Math.max(0, n - before.latency[tier][i]));
  return { seconds: (after.ms - before.ms) / 1000, requests, buckets };
}

function answered({ requests }) {
  return requests.local_hits + requests.memory_hits + requests.disk_hits + requests.origin_fills;
}

function ended({ requests }) {
  return ENDS.reduce((sum, [name]) => sum + requests[name], 0);
}

// Hits are the answers without the origin; null if nothing was answered.
function hitRatio(change) {
  const total = answered(change);
  return total ? 1 - change.requests.origin_fills / total : null;
}

// Assumes that times spread evenly inside a bucket, as Prometheus does. Infinity: beyond the
// last bound. null: nothing was timed.
function percentile(buckets, bounds, share) {
  const total = buckets.at(-1);
  if (!total) return null;
  const rank = share * total;
  const n = buckets.findIndex((upTo) => upTo >= rank);
  if (bounds[n] === null) return Infinity;
  const [lower, below] = n ? [bounds[n - 1], buckets[n - 1]] : [0, 0];
  return lower + (bounds[n] - lower) * (rank - below) / (buckets[n] - below);
}

// The value that a chart of `series` ends with.
function newestOf(samples, trailMs, value) {
  return series(samples, trailMs, value).at(-1)?.value ?? null;
}

// One value for each sample, of what changed over the `trailMs` before it; null across gaps.
function series(samples, trailMs, value) {
  let first = 0;
  return samples.map((sample, n) => {
    if (n === 0 || sample.ms - samples[n - 1].ms > GAP_MS) {
      first = n;
      return { ms: sample.ms, value: null };
    }
    while (first < n - 1 && samples[first + 1].ms <= sample.ms - trailMs) first += 1;
    return { ms: sample.ms, value: value(between(samples[first], sample)) };
  });
}
