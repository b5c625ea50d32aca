// How are elements made? Of text only: no function here takes markup, so an id or a message of
// the daemon cannot become markup. The page's policy refuses markup too.

const SVG = "http://www.w3.org/2000/svg";

function byId(id) {
  return document.getElementById(id);
}

// Children are elements or text; null and false are left out.
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== false));
  return element;
}

// Writes only a changed text: each write makes a live region speak, and ends a selection.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function swatch(name) {
  return make("span", { class: `swatch of-${name}`, "aria-hidden": "true" });
}

// Pairs of a name and a value, or of a name, a value and a tone.
function facts(pairs) {
  return make("dl", { class: "facts" }, pairs.map(([name, value, tone]) => [
    make("dt", {}, name),
    make("dd", { "data-tone": tone || null }, value),
  ]));
}

// `columns`: [title, is it a number]. The first cell of a row names it. The roles are explicit,
// because a phone's layout changes the `display` that implies them.
function fillTable(table, caption, columns, rows, whenEmpty) {
  const head = columns.map(([title, isNumber]) =>
    make("th", { scope: "col", role: "columnheader", class: isNumber ? "number" : null }, title));
  const lines = rows.map((cells) => make("tr", { role: "row" }, cells.map((cell, n) => n === 0
    ? make("th", { scope: "row", role: "rowheader" }, cell)
    : make("td", { role: "cell", class: columns[n][1] ? "number" : null, "data-label": columns[n][0] }, cell))));
  const none = make("tr", { role: "row" }, make("td", { role: "cell", class: "nothing", colspan: columns.length }, whenEmpty));
  table.setAttribute("role", "table");
  table.replaceChildren(
    ...(caption ? [make("caption", {}, caption)] : []),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, head)),
    make("tbody", { role: "rowgroup" }, lines.length ? lines : none),
  );
}
