// What is in each namespace, what is each kind, and what left lately?

const SHOWN_EVENTS = 10;

function showNamespaces(status) {
  const kindOf = Object.fromEntries(status.kinds.flatMap((kind) => kind.namespaces.map((name) => [name, kind.name])));
  fillTable(byId("namespaces"), null,
    [["Namespace"], ["Kind"], ["L1 entries", true], ["L1 size", true], ["L2 entries", true], ["L2 size", true]],
    status.namespaces.map((space) => [
      space.name, kindOf[space.name] ?? "",
      `${count(space.memory_entries)} of ${count(space.memory_max_entries)}`, bytes(space.memory_bytes),
      count(space.disk_entries), bytes(space.disk_bytes),
    ]), "No namespaces");
}

function showKinds(status) {
  fillTable(byId("kinds"), null,
    [["Kind"], ["Version"], ["Fields"], ["Invalidated by"], ["Base TTL", true], ["Stale if error", true], ["L1 limit", true]],
    status.kinds.map((kind) => [
      make("span", {}, kind.name, " ", kind.private ? make("span", { class: "tag" }, "private") : ""),
      kind.version || "–", kind.fields.join(", "), kind.subject, span(kind.ttl_s),
      kind.stale_if_error_s ? span(kind.stale_if_error_s) : "never",
      kind.max_bytes ? `${count(kind.max_entries)}, ${bytes(kind.max_bytes)}` : count(kind.max_entries),
    ]), "No kinds");
}

function showEvents(events) {
  fillTable(byId("invalidations"), "Invalidations",
    [["At"], ["What"], ["Removed", true]],
    events.invalidations.slice(0, SHOWN_EVENTS).map((event) => [
      clock(Date.parse(event.at)),
      make("span", {}, make("span", { class: "tag" }, event.scope), " ", event.scope === "everything" ? "" : idOr(event.target)),
      count(event.removed_count),
    ]), "None since the start");
  fillTable(byId("evictions"), "Evictions",
    [["At"], ["Key"], ["From"], ["Size", true], ["Age", true]],
    events.evictions.slice(0, SHOWN_EVENTS).map((event) => [
      clock(Date.parse(event.at)),
      make("span", {}, `${event.namespace} `, idOr(event.id)),
      make("span", {}, event.tier === "memory" ? "L1" : "L2", make("span", { class: "muted" }, ` ${event.reason.replaceAll("_", " ")}`)),
      bytes(event.size_bytes), span(event.age_s),
    ]), "None since the start: everything has had room");
}

function idOr(id) {
  return id === null ? make("span", { class: "muted" }, "(not for your role)") : make("span", { class: "id" }, id);
}
