// How full is each tier, how fast is it, and what is under way?

const READ_FAILURES = {
  unavailable: "Reads without an answer",
  denied: "Reads refused",
  corrupt: "Objects not decodable",
};

function showTiers(status, samples, bounds) {
  const minute = samples.over(MINUTE_MS);
  byId("tiers").replaceChildren(
    memoryCard(status, minute, bounds),
    diskCard(status, minute, bounds),
    originCard(status, minute, bounds),
    workCard(status),
  );
}

function memoryCard({ tiers: { memory }, namespaces }, minute, bounds) {
  const full = namespaces.filter((space) => space.memory_entries >= space.memory_max_entries);
  return tierCard("memory", "L1 memory", [
    lead(memory),
    meter("memory", "L1 memory", memory, { held: memory.held_bytes }),
    facts([
      ["Entries", count(memory.entries)],
      ["Full namespaces", `${full.length} of ${namespaces.length}`],
      ["Held by readers", bytes(memory.held_bytes)],
      ["Evicted", count(memory.evictions)],
      ["Expired", count(memory.expirations)],
      ["Free on its file system", bytes(memory.free_bytes)],
      ...times("memory", minute, bounds),
    ]),
  ]);
}

function diskCard({ tiers: { disk } }, minute, bounds) {
  const isAtFloor = disk.free_bytes < disk.floor_bytes;
  return tierCard("disk", "L2 disk", [
    lead(disk),
    meter("disk", "L2 disk", disk, { mark: disk.high_watermark_bytes }),
    facts([
      ["Entries", count(disk.entries)],
      ["Waiting to be written", bytes(disk.pending_bytes)],
      ["Evicted", count(disk.evictions)],
      ["Expired", count(disk.expirations)],
      ["Free on its file system", bytes(disk.free_bytes), isAtFloor ? "bad" : null],
      ...times("disk", minute, bounds),
    ]),
  ]);
}

function originCard({ origin, fills }, minute, bounds) {
  const { ok, not_found: absent, cancelled: _, ...bad } = origin.requests;
  const failures = Object.entries(bad).filter(([, n]) => n > 0);
  return tierCard("origin", `L3 origin (${origin.kind})`, [
    make("p", { class: "lead" }, origin.circuit === "open" ? "left alone" : "in use"),
    make("p", { class: "of" }, `circuit ${origin.circuit}`),
    facts([
      ["Objects read", count(ok)],
      ["Objects not there", count(absent)],
      ...(failures.length ? failures.map(([name, n]) => [READ_FAILURES[name] ?? name, count(n)]) : [["Reads that failed", "0"]]),
      ["Fills", count(fills.started)],
      ["Fills that found nothing", count(fills.absent)],
      ["Fills that failed", count(fills.failed)],
      ...times("origin", minute, bounds),
    ]),
  ]);
}

function workCard(status) {
  const { flights, fills, invalidations } = status;
  return make("div", { class: "card tier" },
    make("h3", {}, "Under way and counted"),
    make("p", { class: "lead" }, plural(flights.running, "flight", "flights")),
    make("p", { class: "of" }, `of ${count(flights.max)}; ${count(fills.max_concurrent)} fills at a time`),
    facts([
      ["Joined another's fill", count(fills.coalesced_waiters)],
      ["Fills fenced off", count(fills.fenced)],
      ["Puts", count(status.puts)],
      ["Invalidations", count(invalidations.acknowledged)],
      ["Not durable yet", count(invalidations.unfinished), invalidations.unfinished ? "bad" : null],
      ["Absences remembered", count(status.absences)],
      ["Damaged entries", count(status.damaged_entries), status.damaged_entries ? "bad" : null],
      ["Objects not decodable", count(status.decode_failures), status.decode_failures ? "bad" : null],
      ["Loop late by at most", latency(status.loop_lag_s)],
    ]));
}

function tierCard(name, title, content) {
  return make("div", { class: "card tier" }, make("h3", {}, swatch(name), title), content);
}

function lead(tier) {
  return [
    make("p", { class: "lead" }, `${percent(tier.fullness)} full`),
    make("p", { class: "of" }, `${bytes(tier.size_bytes)} of ${bytes(tier.max_bytes)}`),
  ];
}

// `held`: bytes beyond the entries' that count against the limit. `mark`: where eviction begins.
function meter(name, label, tier, { held = 0, mark = 0 }) {
  const filledTo = Math.min(1, tier.size_bytes / tier.max_bytes);
  const heldTo = Math.min(1, (tier.size_bytes + held) / tier.max_bytes);
  const bar = make("div", {
    class: `meter of-${name}`, role: "meter", "aria-label": `${label}, fullness`,
    "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": (filledTo * 100).toFixed(1),
  });
  bar.append(part("held", heldTo), part("fill", filledTo));
  if (mark) {
    const line = make("span", { class: "mark", title: `evicts above ${bytes(mark)}` });
    line.style.left = `${Math.min(1, mark / tier.max_bytes) * 100}%`;
    bar.append(line);
  }
  return bar;
}

function part(name, share) {
  const element = make("span", { class: name });
  element.style.width = `${share * 100}%`;
  return element;
}

function times(tier, minute, bounds) {
  const of = (share) => latency(minute && percentile(minute.buckets[tier], bounds, share));
  return [["Half within, last minute", of(0.5)], ["95 % within, last minute", of(0.95)]];
}
