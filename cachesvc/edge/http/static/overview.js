// Is the daemon healthy, what is its hit ratio, and what has a person to do?

const MINUTE_MS = 60 * 1000;
const TRAIL_MS = 30 * 1000;
// Workers report their own hits once a second, so a mean over less time would jump.
const GET_TRAIL_MS = 10 * 1000;
let shownWarnings = "";

function showProcess(status) {
  setText(byId("process"), `version ${status.version} · up ${span(status.uptime_s)} · read at ${clock(Date.parse(status.now))}`);
  setText(byId("caller"), `you: ${status.caller.name} (${status.caller.roles.join(", ")})`);
}

function showVerdict(status) {
  const critical = status.warnings.filter(({ severity }) => severity === "critical").length;
  const others = status.warnings.length - critical;
  const state = critical ? "critical" : others ? "warning" : "ok";
  byId("verdict").dataset.state = state;
  const parts = [critical && plural(critical, "critical problem", "critical problems"), others && plural(others, "warning", "warnings")];
  const serving = status.ready ? "Serving" : "Not serving";
  setText(byId("headline"), state === "ok" ? "Healthy" : `${serving}, ${parts.filter(Boolean).join(", ")}`);
  setText(byId("subline"), state === "ok" ? "Serving, and nothing needs you." : "Warnings that count since the start stay until a restart.");
  document.title = state === "ok" ? "cachesvc" : `(${status.warnings.length}) cachesvc`;
  const text = JSON.stringify(status.warnings);
  if (text === shownWarnings) return;
  shownWarnings = text;
  byId("warnings").replaceChildren(...status.warnings.map(warning));
}

// The last answer says nothing of the daemon's health now.
function showNoVerdict() {
  byId("verdict").dataset.state = "unknown";
  setText(byId("headline"), "Not known");
  setText(byId("subline"), shownWarnings ? "Below are the warnings that were read last." : "");
  document.title = "(?) cachesvc";
}

function warning({ severity, text, do: action, runbook }) {
  return make("li", { "data-severity": severity },
    make("p", {}, make("span", { class: "severity" }, severity === "critical" ? "Critical" : "Warning"), text),
    make("p", { class: "do" }, make("strong", {}, "Do: "), action),
    runbook ? make("p", { class: "runbook muted" }, "More: ", make("code", {}, `docs/runbook.md#${runbook.toLowerCase()}`)) : null);
}

function showFigures(status, samples) {
  const minute = samples.over(MINUTE_MS);
  const window = samples.over(WINDOW_MS);
  const failed = minute ? minute.requests.failed : 0;
  const isOpen = status.origin.circuit === "open";
  const { running, max } = status.flights;
  const tiles = [
    ["Hit ratio, last minute", percent(minute && hitRatio(minute)), `ten minutes: ${percent(window && hitRatio(window))}`],
    // The chart beside it has the same sum, by tier.
    ["Gets per second", rate(newestOf(samples.all, GET_TRAIL_MS, getRate)), `over 10 s · ${count(status.requests.total)} since the start`],
    ["Failed, last minute", count(failed), `${count(status.requests.failed)} since the start`, failed ? "bad" : null],
    ["Fills under way", count(running), `of ${count(max)} flights`, running >= max ? "warn" : null],
    ["Origin", isOpen ? "left alone" : "in use", isOpen ? "it did not answer; misses fail" : `${status.origin.kind} · circuit closed`, isOpen ? "bad" : null],
  ];
  byId("figures").replaceChildren(...tiles.map(([name, value, note, tone]) => make("div", { "data-tone": tone },
    make("dt", {}, name), make("dd", { class: "value" }, value), make("dd", { class: "note" }, note))));
}

function getRate(change) {
  return ended(change) / change.seconds;
}

class Charts {
  constructor() {
    const empty = "No Gets in the last ten minutes";
    this.hits = new Chart(byId("chart-hits"), {
      title: "Hit ratio", about: "Answered without the origin, over 30 s", write: percent, writeTick: (share) => `${share * 100} %`, scale: "share", empty,
    });
    this.gets = new Chart(byId("chart-gets"), {
      title: "Gets per second", about: "By the tier that answered, over 10 s", write: rate, scale: "linear", stacked: true, empty,
    });
    this.latency = new Chart(byId("chart-latency"), {
      title: "Time to find an entry", about: "95 % take at most this long, over 30 s", write: latency, scale: "log", empty,
    });
  }

  show(samples, bounds) {
    const { all, newest } = samples;
    this.hits.show([{ name: "hits", label: "hits", points: series(all, TRAIL_MS, hitRatio) }], newest.ms);
    this.gets.show(ENDS.map(([name, css, label]) => ({
      name: css, label, points: series(all, GET_TRAIL_MS, (change) => change.requests[name] / change.seconds),
    })), newest.ms);
    this.latency.show(TIERS.map((tier) => ({
      name: tier,
      label: ENDS.find(([, css]) => css === tier)[2],
      points: series(all, TRAIL_MS, (change) => percentile(change.buckets[tier], bounds, 0.95)),
    })), newest.ms);
  }
}
