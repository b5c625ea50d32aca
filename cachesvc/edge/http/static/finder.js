// Which tiers hold a key, and how is it removed? Never shows what is in it.

// The daemon's own rule. Without this check, a browser would resolve `..` in the path that it sends.
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const ID_RULE = "An id has 1 to 128 of A–Z, a–z, 0–9, “.”, “_”, “-”, and begins with a letter or digit.";
const REQUEST_MS = 25 * 1000;

class Finder {
  constructor() {
    this.namespaces = [];
    this.may = new Set();
    this.asked = 0;
    byId("finder").addEventListener("submit", (event) => {
      event.preventDefault();
      this.find();
    });
  }

  // Takes over the daemon's namespaces and the caller's rights.
  update(status) {
    const names = status.namespaces.map(({ name }) => name);
    if (names.join() !== this.namespaces.join()) {
      this.namespaces = names;
      this.offer(names);
    }
    this.may = new Set(status.caller.may);
    const isRefused = !this.may.has("find");
    for (const id of ["namespace", "key-id", "find-button"]) byId(id).disabled = isRefused;
    if (isRefused) this.say(`Your role (${status.caller.roles.join(", ")}) may not look up keys.`, "");
  }

  // A restarted daemon may have other namespaces. The chosen one stays chosen if it still exists.
  offer(names) {
    const choice = byId("namespace");
    const chosen = choice.value;
    const options = names.map((name) => make("option", { value: name }, name));
    choice.replaceChildren(choice.firstElementChild, ...options);
    choice.value = names.includes(chosen) ? chosen : "";
  }

  say(text, tone) {
    const place = byId("finder-status");
    place.dataset.tone = tone;
    setText(place, text);
  }

  async find() {
    const id = byId("key-id").value.trim();
    byId("finder-result").replaceChildren();
    if (!ID.test(id)) {
      byId("key-id").setAttribute("aria-invalid", "true");
      byId("key-id").focus();
      return this.say(ID_RULE, "bad");
    }
    byId("key-id").removeAttribute("aria-invalid");
    await this.look(id, byId("namespace").value);
  }

  async look(id, chosen) {
    const asked = ++this.asked;
    this.say("Looking…", "");
    try {
      const spaces = chosen ? [chosen] : this.namespaces;
      const found = await Promise.all(spaces.map((space) => ask("GET", keyPath(space, id))));
      // Otherwise another key was asked for meanwhile.
      if (asked === this.asked) this.show(id, chosen, found);
    } catch (error) {
      if (asked === this.asked) this.say(error.message, "bad");
    }
  }

  show(id, chosen, found) {
    const held = found.filter(({ tiers, filling }) => tiers.length || filling);
    const where = chosen || "any namespace";
    this.say(held.length ? `Found in ${held.map(({ namespace }) => namespace).join(", ")}.` : `Not cached in ${where}.`, "");
    byId("finder-result").replaceChildren(...held.map((key) => this.card(key)));
    if (held.length > 1 && this.may.has("invalidate")) {
      byId("finder-result").append(make("div", { class: "buttons" },
        this.button(`Invalidate all ${held.length}`, held, () => this.look(id, chosen))));
    }
  }

  card(key) {
    const copies = key.tiers.map((copy) => make("div", {},
      make("h3", {}, swatch(copy.tier), ` ${copy.tier === "memory" ? "L1 memory" : "L2 disk"}`),
      facts([
        ["Size", bytes(copy.size_bytes)],
        ["Age", span(copy.age_s)],
        ["Expires in", copy.expires_in_s > 0 ? span(copy.expires_in_s) : "expired"],
        ["Accesses", count(copy.accesses)],
        ["Filled", dateAndClock(Date.parse(copy.filled_at))],
        ["Owner", make("span", { class: "id" }, copy.owner_id || "–")],
        ["Kind version", copy.kind_version || "–"],
        ["Generation", make("span", { class: "id" }, copy.generation)],
      ])));
    return make("article", { class: "found" },
      make("p", {}, make("span", { class: "tag" }, key.namespace), " ", make("span", { class: "id" }, key.id),
        key.filling ? " · is being filled" : ""),
      make("div", { class: "copies" }, copies),
      this.may.has("invalidate")
        ? make("div", { class: "buttons" }, this.button("Invalidate", [key], () => this.look(key.id, byId("namespace").value)))
        : make("p", { class: "muted" }, "Your role may not invalidate; backend and admin may."));
  }

  button(label, keys, after) {
    const names = keys.map(({ namespace, id }) => `${namespace}/${id}`);
    const button = make("button", { type: "button", class: "danger", "aria-label": `${label}: ${names.join(", ")}` }, `${label}…`);
    button.addEventListener("click", () => this.invalidate(keys, names, after));
    return button;
  }

  async invalidate(keys, names, after) {
    if (!await confirmed(names)) return;
    this.say("Invalidating…", "");
    try {
      let removed = 0;
      for (const { namespace, id } of keys) removed += (await ask("DELETE", keyPath(namespace, id))).removed_count;
      await after();
      this.say(`Invalidated, and final: ${plural(removed, "entry", "entries")} removed.`, "ok");
    } catch (error) {
      this.say(`Not known to be invalidated: invalidate again. ${error.message}`, "bad");
    }
    // The button that had the focus is gone.
    byId("key-id").focus();
  }
}

// Resolves to true if the person confirms; Escape and the backdrop mean no.
function confirmed(names) {
  const dialog = byId("confirm");
  setText(byId("confirm-text"), "The next Get reads the origin. Workers drop their own copies too. An invalidation cannot be undone.");
  byId("confirm-keys").replaceChildren(...names.map((name) => make("li", { class: "id" }, name)));
  return new Promise((resolve) => {
    const end = (answer) => {
      byId("confirm-yes").onclick = byId("confirm-no").onclick = dialog.onclose = null;
      if (dialog.open) dialog.close();
      resolve(answer);
    };
    byId("confirm-yes").onclick = () => end(true);
    byId("confirm-no").onclick = () => end(false);
    // The event of an earlier closing may come when the dialog is open again.
    dialog.onclose = () => { if (!dialog.open) end(false); };
    dialog.showModal();
    byId("confirm-no").focus();
  });
}

function keyPath(namespace, id) {
  return `/api/key/${encodeURIComponent(namespace)}/${encodeURIComponent(id)}`;
}

// Throws an Error whose message is for a person.
async function ask(method, path, timeoutMs = REQUEST_MS) {
  let answer;
  try {
    answer = await fetch(path, { method, cache: "no-store", signal: AbortSignal.timeout(timeoutMs) });
  } catch {
    throw new Error("The daemon does not answer.");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ? `${body.error.message} (${body.error.reason})` : `HTTP ${answer.status}`);
  return body;
}
