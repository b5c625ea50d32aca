// How are numbers written for a person? Short, with the unit, the same everywhere.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const DECIMAL = ["", "k", "M", "G", "T", "P", "E"];

// Three significant digits: 9.87, 98.7, 987.
function threeDigits(value) {
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return value.toFixed(digits).replace(/\.0+$/, "");
}

function scaled(value, step, names) {
  let n = 0;
  // A value that rounds up to a whole step is written in the next unit.
  while (value >= step * 0.9995 && n < names.length - 1) {
    value /= step;
    n += 1;
  }
  return [value, names[n]];
}

function bytes(size) {
  const [value, unit] = scaled(size, 1024, BINARY);
  return `${unit === "B" ? value : threeDigits(value)} ${unit}`;
}

function count(number) {
  if (number < 10000) return String(number);
  const [value, unit] = scaled(number, 1000, DECIMAL);
  return threeDigits(value) + unit;
}

function rate(perSecond) {
  if (perSecond === null) return "–";
  if (perSecond === 0) return "0";
  if (perSecond < 0.01) return "<0.01";
  return perSecond < 1000 ? threeDigits(perSecond) : count(perSecond);
}

function percent(share) {
  if (share === null) return "–";
  // Only exactly 100 % and 0 % are written as such.
  if (share < 1 && share > 0.9995) return ">99.9 %";
  if (share > 0 && share < 0.0005) return "<0.1 %";
  return `${(share * 100).toFixed(share === 1 || share === 0 ? 0 : 1)} %`;
}

function latency(seconds) {
  if (seconds === null) return "–";
  if (seconds === Infinity) return ">10 s";
  if (seconds < 0.001) return `${Math.max(1, Math.round(seconds * 1e6))} µs`;
  return seconds < 1 ? `${threeDigits(seconds * 1000)} ms` : `${threeDigits(seconds)} s`;
}

// The two largest units: 3 d 4 h, 12 min 5 s.
function span(seconds) {
  if (seconds < 1) return seconds > 0 ? "<1 s" : "0 s";
  const sizes = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  let left = Math.floor(seconds);
  const parts = [];
  for (const [size, unit] of sizes) {
    const whole = Math.floor(left / size);
    left -= whole * size;
    if (whole > 0) parts.push(`${whole} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

// In the browser's time zone, and the same in every language.
function clock(ms) {
  const at = new Date(ms);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(twoDigits).join(":");
}

function dateAndClock(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${twoDigits(at.getMonth() + 1)}-${twoDigits(at.getDate())} ${clock(ms)}`;
}

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
