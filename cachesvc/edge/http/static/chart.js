// How is a value drawn over the last minutes? As lines or as stacked areas in one SVG,
// with a readout under the pointer or, by arrow keys, at the cursor.

const HEIGHT = 190;
// Without the shorter windows, a young daemon's minutes would be a sliver at the right.
const WINDOWS_MS = [2, 4, 6, 10].map((minutes) => minutes * 60 * 1000);
const MARGIN = { left: 46, right: 10, top: 8, bottom: 22 };

// options: title, about, write (a value as text), writeTick (if shorter), scale ("linear", "share" or "log"), stacked,
// empty (what is said while there is nothing to draw).
class Chart {
  constructor(place, options) {
    this.options = options;
    this.lines = [];
    this.cursor = null;
    this.svg = draw("svg", { role: "img", tabindex: "0", height: HEIGHT });
    this.tip = make("div", { class: "tip", hidden: "" });
    this.spoken = make("p", { class: "skip", role: "status" });
    this.legend = make("ul", { class: "legend" });
    this.plot = make("div", { class: "plot" }, this.svg, this.tip);
    place.append(make("h3", {}, options.title), make("p", { class: "about" }, options.about), this.plot, this.legend, this.spoken);
    this.svg.addEventListener("pointermove", (event) => this.pointAt(event));
    this.svg.addEventListener("pointerleave", () => this.moveTo(null));
    this.svg.addEventListener("blur", () => this.moveTo(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  // lines: {name, label, points: [{ms, value}]}, all of the same moments.
  show(lines, nowMs) {
    this.lines = lines;
    this.nowMs = nowMs;
    const knownMs = nowMs - (lines[0].points[0]?.ms ?? nowMs);
    this.windowMs = WINDOWS_MS.find((windowMs) => windowMs >= knownMs) ?? WINDOW_MS;
    this.legend.replaceChildren(...lines.map(({ name, label, points }) =>
      make("li", {}, swatch(name), `${label} `, make("b", {}, this.options.write(points.at(-1)?.value ?? null)))));
    const said = lines.map(({ label, points }) => `${label} ${this.options.write(points.at(-1)?.value ?? null)}`);
    this.svg.setAttribute("aria-label", `${this.options.title}, now: ${said.join(", ")}. Arrow keys read earlier values.`);
    this.draw();
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width || !this.lines.length) return;
    this.width = width;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const values = this.lines.flatMap(({ points }) => points.map(({ value }) => value)).filter((value) => value !== null);
    this.axis = this.axisOf(values);
    const parts = [this.grid(), this.times()];
    if (values.length) parts.push(this.options.stacked ? this.areas() : this.strokes());
    else parts.push(draw("text", { class: "empty", x: (MARGIN.left + width) / 2, y: HEIGHT / 2 }, this.options.empty));
    this.cursorLine = draw("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    this.svg.replaceChildren(...parts.flat(), this.cursorLine);
    this.placeCursor();
  }

  // ---- where a value and a moment are

  x(ms) {
    const room = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + room * Math.max(0, 1 - (this.nowMs - ms) / this.windowMs);
  }

  y(value) {
    const { low, high } = this.axis;
    const share = this.options.scale === "log"
      ? Math.log(Math.min(high, Math.max(low, value)) / low) / Math.log(high / low)
      : (value - low) / (high - low);
    return HEIGHT - MARGIN.bottom - (HEIGHT - MARGIN.top - MARGIN.bottom) * share;
  }

  axisOf(values) {
    if (this.options.scale === "share") return { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1] };
    if (this.options.scale === "log") return { low: 0.0001, high: 10, ticks: [0.0001, 0.001, 0.01, 0.1, 1, 10] };
    const most = this.options.stacked ? this.highestStack() : Math.max(0, ...values);
    const high = niceAbove(most || 1);
    return { low: 0, high, ticks: [0, 0.25, 0.5, 0.75, 1].map((share) => share * high) };
  }

  highestStack() {
    return Math.max(0, ...this.lines[0].points.map((_, n) => this.lines.reduce((sum, { points }) => sum + (points[n].value ?? 0), 0)));
  }

  // ---- what is drawn

  grid() {
    return this.axis.ticks.map((tick) => [
      draw("line", { class: "grid", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: Math.round(this.y(tick)), y2: Math.round(this.y(tick)) }),
      draw("text", { class: "axis", x: MARGIN.left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, this.options.writeTick?.(tick) ?? this.options.write(tick)),
    ]).flat();
  }

  times() {
    const y = HEIGHT - 5;
    const at = (share) => MARGIN.left + (this.width - MARGIN.left - MARGIN.right) * share;
    return [
      draw("text", { class: "axis", x: at(0), y }, `${span(this.windowMs / 1000)} ago`),
      draw("text", { class: "axis", x: at(0.5), y, "text-anchor": "middle" }, span(this.windowMs / 2000)),
      draw("text", { class: "axis", x: at(1), y, "text-anchor": "end" }, "now"),
    ];
  }

  strokes() {
    return this.lines.map(({ name, points }) => {
      const runs = unbroken(points);
      const wash = this.options.scale === "share" ? runs.map((run) => this.band(run, "wash", name, run.map(() => 0), run.map(({ value }) => value))) : [];
      return [...wash, ...runs.map((run) => run.length === 1
        ? draw("circle", { class: `of-${name}`, cx: this.x(run[0].ms), cy: this.y(run[0].value), r: 2.2 })
        : draw("path", { class: `line of-${name}`, d: this.path(run, run.map(({ value }) => value)) }))];
    }).flat();
  }

  areas() {
    const floor = new Map();
    return this.lines.map(({ name, points }) => unbroken(points).map((run) => {
      const from = run.map(({ ms }) => floor.get(ms) ?? 0);
      const to = run.map(({ value }, n) => from[n] + value);
      run.forEach(({ ms }, n) => floor.set(ms, to[n]));
      return to.some((value, n) => value > from[n]) ? this.band(run, "area", name, from, to) : null;
    })).flat().filter((area) => area !== null);
  }

  band(run, kind, name, from, to) {
    const back = [...run].reverse();
    const d = `${this.path(run, to)}L${this.path(back, [...from].reverse()).slice(1)}Z`;
    return draw("path", { class: `${kind} of-${name}`, d });
  }

  path(points, values) {
    return `M${points.map(({ ms }, n) => `${this.x(ms).toFixed(1)},${this.y(values[n]).toFixed(1)}`).join("L")}`;
  }

  // ---- the readout

  pointAt(event) {
    const points = this.lines[0]?.points ?? [];
    if (!points.length || !this.width) return;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const distances = points.map(({ ms }) => Math.abs(this.x(ms) - x));
    this.moveTo(points[distances.indexOf(Math.min(...distances))].ms);
  }

  step(event) {
    const points = this.lines[0]?.points ?? [];
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !points.length) return;
    event.preventDefault();
    const at = points.findIndex(({ ms }) => ms === this.cursor);
    const next = at < 0 ? points.length - 1 : Math.min(points.length - 1, Math.max(0, at + move));
    this.moveTo(points[next].ms);
    setText(this.spoken, [clock(this.cursor), ...this.readings()].join(", "));
  }

  moveTo(ms) {
    this.cursor = ms;
    this.placeCursor();
  }

  readings() {
    return this.lines.map(({ label, points }) => `${label} ${this.options.write(points.find(({ ms }) => ms === this.cursor)?.value ?? null)}`);
  }

  placeCursor() {
    const isShown = this.cursor !== null && this.lines[0]?.points.some(({ ms }) => ms === this.cursor);
    this.tip.hidden = !isShown;
    this.cursorLine?.setAttribute("visibility", isShown ? "visible" : "hidden");
    if (!isShown) return;
    const x = this.x(this.cursor);
    this.cursorLine.setAttribute("x1", x);
    this.cursorLine.setAttribute("x2", x);
    this.tip.replaceChildren(...[clock(this.cursor), ...this.readings()].map((line) => make("div", {}, line)));
    const left = x < this.width / 2 ? x + 10 : x - 10 - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(this.width - this.tip.offsetWidth, left))}px`;
  }
}

// 1, 2, 4 or 8 times a power of ten: quarters of it are short numbers.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 8, 10].map((factor) => factor * power).find((nice) => nice >= value);
}

function unbroken(points) {
  const runs = [[]];
  for (const point of points) {
    if (point.value !== null) runs.at(-1).push(point);
    else if (runs.at(-1).length) runs.push([]);
  }
  return runs.filter((run) => run.length);
}
