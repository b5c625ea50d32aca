// When is the daemon asked, and what if it does not answer?

const POLL_MS = 2000;
const POLL_TIMEOUT_MS = 5000;
const samples = new Samples();
const charts = new Charts();
const finder = new Finder();
// The status that was shown last.
let shown = null;
let timer = 0;
let isLooking = false;

async function look() {
  const status = await ask("GET", "/api/status", POLL_TIMEOUT_MS);
  const isNew = !shown || shown.started_at !== status.started_at;
  if (isNew || Date.parse(status.now) - Date.parse(shown.now) > 3 * POLL_MS) {
    const history = await ask("GET", "/api/history", POLL_TIMEOUT_MS);
    samples.replace(history.samples.map(sampleOfHistory));
  }
  const events = await ask("GET", "/api/events", POLL_TIMEOUT_MS);
  samples.add(sampleOfStatus(status));
  show(status, events);
}

function show(status, events) {
  const bounds = status.latency.memory.buckets.map(([bound]) => bound);
  showProcess(status);
  showVerdict(status);
  showFigures(status, samples);
  charts.show(samples, bounds);
  showTiers(status, samples, bounds);
  showNamespaces(status);
  showKinds(status);
  showEvents(events);
  finder.update(status);
  shown = status;
}

function showStale(reason) {
  const banner = byId("stale");
  document.body.classList.toggle("is-stale", reason !== null);
  banner.hidden = reason === null;
  if (reason === null) return setText(banner, "");
  // No running count of seconds: a screen reader speaks an alert at each change.
  showNoVerdict();
  const since = shown ? ` What you see is from ${clock(Date.parse(shown.now))}.` : "";
  setText(banner, `${reason}${since} Trying again.`);
}

async function poll() {
  clearTimeout(timer);
  if (isLooking) return;
  isLooking = true;
  try {
    await look();
    showStale(null);
  } catch (error) {
    showStale(error.message);
  }
  isLooking = false;
  // A page that nobody sees asks nothing.
  if (!document.hidden) timer = setTimeout(poll, POLL_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
poll();
