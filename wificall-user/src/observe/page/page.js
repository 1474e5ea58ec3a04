"use strict";

// Asks the API each second, or less often where it takes long, and shows what it says. Values come as text only: nothing is ever parsed as HTML.

const EVERY_MS = 1000;
// The agent says itself that it is busy, after nine seconds.
const PATIENCE_MS = 12000;
// An agent with very many tunnels takes long to answer, and does nothing else meanwhile: so many times longer it is left
// alone, but no longer than this. After failures, twice as long each time.
const PART = 10;
const EVERY_MOST_MS = 10000;
// More rows than this help nobody; the filter has the agent find the others.
const ROWS = 200;
// After the last letter of a filter.
const TYPED_MS = 300;
// Minutes and seconds that drawings have room for: as many as the agent remembers.
const MINUTES = 15;
const SECONDS = 120;
// What is said to screen readers, at most this often.
const SAY_MS = 10000;

const SVG = "http://www.w3.org/2000/svg";
const STATES = {
  setting_up: "setting up", failed: "set-up failed", up: "up", call: "in a call", idle: "idle", gone: "gone",
};
const VOICES = {
  talking: "talking", silent: "silent", one_way_up: "one-way: only the phone is heard",
  one_way_down: "one-way: only the network is heard",
};
const CAUSES = {
  no_answer: "no answer to IKE_SA_INIT", refused: "refused", authentication_stalled: "authentication stalled",
  esp_missing: "ESP missing",
};
const STEPS = {
  init_sent: "IKE_SA_INIT sent", init_answered: "IKE_SA_INIT answered", natt: "moved to port 4500",
  auth_sent: "IKE_AUTH sent", auth_answered: "IKE_AUTH answered", esp_up: "ESP from the phone",
  esp_down: "ESP from the ePDG",
};

const $ = (id) => document.getElementById(id);

// --- text ---

const known = (value) => value !== undefined && value !== null && value !== "";
const or = (value, missing = "–") => (known(value) ? value : missing);
const count = (value) => Number(value || 0).toLocaleString("en");
const ms = (value) => (known(value) ? `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} ms` : "–");
// A little loss is not none.
const percent = (value) => (known(value) ? `${value === 0 ? 0 : value.toFixed(value < 0.1 ? 2 : value < 10 ? 1 : 0)} %` : "–");
const clock = (at) => new Date(at).toLocaleTimeString();
const words = (value) => String(value).replaceAll("_", " ");

function lasted(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60}\u00a0s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

// --- elements ---

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Only what differs is touched: a selection, a focus and a screen reader's place outlive the second.
function put(node, text) {
  const string = String(text);
  if (node.textContent !== string) node.textContent = string;
}

function mark(node, name) {
  if (node.className !== name) node.className = name;
}

function facts(list, entries) {
  const rows = [...list.children];
  if (rows.length !== entries.length || rows.some((row, i) => row.firstChild.textContent !== entries[i][0])) {
    list.replaceChildren(...entries.map(([term]) => element("div", {}, element("dt", {}, term), element("dd"))));
  }
  entries.forEach(([, text, look], i) => {
    const value = list.children[i].lastChild;
    put(value, text);
    mark(value, look || "");
  });
}

// A drawing of samples, the last of `slots` on the right: a line for what came, a bar for what was lost; what it says is
// its label.
function spark(svg, samples, slots, label) {
  const high = Math.max(1, ...samples.map((sample) => sample.came));
  const width = Math.max(slots, samples.length);
  const first = width - samples.length;
  // A step a sample, so that also the first one is seen.
  const points = samples.flatMap((sample, i) => {
    const y = (100 - (sample.came / high) * 92).toFixed(1);
    return [`${first + i},${y}`, `${first + i + 1},${y}`];
  });
  const bars = samples
    .map((sample, i) => ({ i, share: sample.lost / Math.max(1, sample.came + sample.lost) }))
    .filter((bar) => bar.share > 0)
    // A tenth fills it: a call is beyond help long before all is lost. The least loss is to be seen.
    .map((bar) => ({ i: bar.i, height: Math.max(8, Math.min(100, bar.share * 1000)) }));
  svg.setAttribute("viewBox", `0 0 ${width} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const shape = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  svg.replaceChildren(
    shape("line", { class: "base", x1: 0, y1: 100, x2: width, y2: 100 }),
    ...bars.map(({ i, height }) => shape("rect", { class: "lost", x: first + i, y: 100 - height, width: 0.9, height })),
    shape("polyline", { class: "came", points: points.join(" ") }),
  );
}

function newSpark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  return svg;
}

// A table that keeps its rows from one second to the next. The roles say again what the elements say, for a narrow
// screen lays them out as blocks, and is then asked what they are.
class Table {
  constructor(place, caption, columns, empty) {
    this.columns = columns;
    this.rows = new Map();
    this.body = element("tbody", { role: "rowgroup" });
    const heads = columns.map((column) => element("th", { scope: "col", role: "columnheader" }, column.name));
    this.table = element("table", { role: "table", "aria-label": caption },
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)), this.body);
    this.note = element("p", { class: "hint" });
    this.empty = empty;
    place.append(this.table, this.note);
  }

  show(items, key, note) {
    this.table.hidden = items.length === 0;
    put(this.note, note || (items.length === 0 ? this.empty : ""));
    this.note.hidden = this.note.textContent === "";
    const seen = new Set();
    const focused = this.body.contains(document.activeElement) && document.activeElement;
    let place = this.body.firstChild;
    for (const item of items) {
      const name = key(item);
      seen.add(name);
      let row = this.rows.get(name);
      if (!row) {
        row = this.make();
        this.rows.set(name, row);
      }
      this.columns.forEach((column, i) => column.fill(row.cells[i], item, row));
      for (const part of row.parts) {
        if (part === place) place = place.nextSibling;
        else this.move(part, place);
      }
    }
    // Some browsers take the focus from what is moved.
    if (focused && focused.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
    for (const [name, row] of this.rows) {
      if (seen.has(name)) continue;
      row.parts.forEach((part) => part.remove());
      this.rows.delete(name);
    }
  }

  move(part, place) {
    if (this.body.moveBefore && part.parentNode === this.body) this.body.moveBefore(part, place);
    else this.body.insertBefore(part, place);
  }

  make() {
    const cells = this.columns.map((column, i) => (i === 0
      ? element("th", { scope: "row", role: "rowheader" })
      : element("td", { role: "cell", "data-label": column.name })));
    const row = { cells, parts: [element("tr", { role: "row" }, ...cells)] };
    return row;
  }
}

const text = (name, value, look) => ({
  name,
  fill(cell, item) {
    if (!cell.firstChild) cell.append(element("span"));
    put(cell.firstChild, value(item));
    mark(cell.firstChild, look ? look(item) : "");
  },
});

// --- what is shown ---

function lossLook(leg) {
  if (!known(leg.loss_percent)) return "quiet";
  return leg.loss_percent >= 3 ? "bad" : leg.loss_percent >= 1 ? "warn" : "";
}

function legText(leg) {
  if (!known(leg.loss_percent)) return "nothing was sent";
  const jitter = known(leg.jitter_ms) ? `, jitter ${ms(leg.jitter_ms)}` : "";
  return `${percent(leg.loss_percent)} lost (${count(leg.lost)})${jitter}`;
}

function quality(call) {
  if (known(call.mos)) return `≈ ${call.mos.toFixed(1)}`;
  return known(call.mos_missing) ? `none: ${call.mos_missing}` : "–";
}

function voiceLook(call) {
  return call.state.startsWith("one_way") ? "bad" : "";
}

const history = {
  name: "Last seconds",
  fill(cell, { call }) {
    const samples = call.history || [];
    if (!cell.firstChild) cell.append(newSpark());
    const lost = samples.reduce((sum, sample) => sum + sample.up_lost + sample.down_lost, 0);
    spark(cell.firstChild,
      samples.map((sample) => ({ came: sample.up + sample.down, lost: sample.up_lost + sample.down_lost })), SECONDS,
      `last ${samples.length} seconds: ${count(lost)} packets lost`);
  },
};

const calls = new Table($("calls"), "Calls that go on", [
  text("Phone", ({ tunnel }) => tunnel.client),
  text("Operator", ({ tunnel }) => or(tunnel.operator)),
  text("Heard", ({ call }) => VOICES[call.state] || words(call.state), ({ call }) => voiceLook(call)),
  text("For", ({ call }) => lasted(call.seconds)),
  text("Phone → here", ({ call }) => legText(call.client_to_us), ({ call }) => lossLook(call.client_to_us)),
  text("Network → here", ({ call }) => legText(call.network_to_us), ({ call }) => lossLook(call.network_to_us)),
  text("MOS, estimated", ({ call }) => quality(call)),
  history,
], "No call goes on.");

function setupText(setup) {
  if (!setup) return "older than this agent's sight";
  const notify = known(setup.notify) ? ` (${setup.notify})` : "";
  if (setup.result === "ok") return known(setup.took_ms) ? `ok in ${ms(setup.took_ms)}` : "ok";
  if (known(setup.result)) return `${CAUSES[setup.result] || words(setup.result)}${notify}`;
  if (known(setup.stalled)) {
    const long = known(setup.stalled_ms) ? ` for ${lasted(setup.stalled_ms / 1000)}` : "";
    return `waits for ${STEPS[setup.stalled] || words(setup.stalled)}${long}${notify}`;
  }
  return `goes on${notify}`;
}

function setupLook(setup) {
  if (!setup) return "quiet";
  return setup.result === "ok" ? "" : known(setup.result) ? "bad" : known(setup.stalled) ? "warn" : "";
}

function exitText(exit) {
  if (!exit) return "not known yet";
  const marked = known(exit.mark) ? `, mark ${exit.mark}` : "";
  if (!known(exit.exit)) return known(exit.mark) ? `none, by this host's routes for mark ${exit.mark}` : "none, by the ordinary route";
  if (exit.way === "gateway") return `${exit.exit}, by gateway ${or(exit.gateway)}${known(exit.device) ? ` on ${exit.device}` : ""}${marked}`;
  if (exit.way === "device") return `${exit.exit}, by device ${or(exit.device)}${marked}`;
  return `${exit.exit}, no gateway is up: ${exit.way === "block" ? "it blocks" : "by the ordinary route"}${marked}`;
}

function tunnelFacts(tunnel) {
  const steps = (tunnel.setup?.milestones || [])
    .map((step) => `${STEPS[step.name] || words(step.name)} after ${ms(step.after_ms)}`);
  const flows = (tunnel.flows || []).map((flow) => (flow.protocol === "esp"
    ? `native ESP of ${flow.client}` : `${flow.client} port ${flow.port}`));
  const past = (tunnel.calls || []).filter((call) => known(call.ended))
    .map((call) => `${clock(call.since)}, ${lasted(call.seconds)}: to here ${percent(call.client_to_us.loss_percent)} lost from the phone, ${percent(call.network_to_us.loss_percent)} from the network`);
  return [
    ["ePDG", tunnel.endpoint],
    ["Owners", (tunnel.owners || []).join(", ") || "unknown"],
    ["First seen", clock(tunnel.began)],
    ["Last packet", clock(tunnel.seen)],
    ["Set-up", setupText(tunnel.setup), setupLook(tunnel.setup)],
    ["Steps", steps.join(" · ") || "none seen"],
    ["Flows", flows.join(" · ") || "none"],
    ["Keepalives", known(tunnel.keepalive_ms) ? `every ${lasted(tunnel.keepalive_ms / 1000)}` : "none seen"],
    ["NAT timeout", tunnel.nat_timeout_shorter ? "shorter than that: this box forgets the tunnel in between" : "not shorter", tunnel.nat_timeout_shorter ? "warn" : ""],
    ["Packets", `${count(tunnel.packets_up)} from the phone, ${count(tunnel.packets_down)} to it`],
    ["Bytes", `${count(tunnel.bytes_up)} from the phone, ${count(tunnel.bytes_down)} to it`],
    ["Exit taken", exitText(tunnel.exit)],
    ["Moved", tunnel.roamed === 1 ? "once" : `${count(tunnel.roamed)} times`],
    ["Earlier calls", past.join(" · ") || "none"],
  ];
}

const opener = {
  name: "Phone",
  fill(cell, tunnel, row) {
    if (!cell.firstChild) {
      const id = `more-${tunnel.id}`;
      const list = element("dl", { class: "facts" });
      const inside = element("td", { role: "cell", colspan: "8" }, list);
      const more = element("tr", { role: "row", class: "more", id }, inside);
      const button = element("button", { type: "button", "aria-expanded": "false", "aria-controls": id });
      more.hidden = true;
      button.addEventListener("click", () => {
        more.hidden = !more.hidden;
        button.setAttribute("aria-expanded", String(!more.hidden));
        facts(list, tunnelFacts(row.tunnel));
      });
      cell.append(button);
      row.parts.push(more);
      row.more = more;
      row.list = list;
    }
    row.tunnel = tunnel;
    put(cell.firstChild, tunnel.client);
    if (!row.more.hidden) facts(row.list, tunnelFacts(tunnel));
  },
};

let now = 0;
const STATE_LOOKS = { failed: "bad", setting_up: "warn", up: "good", call: "good" };
const tunnels = new Table($("tunnels"), "Tunnels", [
  opener,
  text("Operator", (tunnel) => or(tunnel.operator)),
  text("Country", (tunnel) => or(tunnel.country)),
  text("State", (tunnel) => STATES[tunnel.state] || words(tunnel.state), (tunnel) => STATE_LOOKS[tunnel.state] || "quiet"),
  text("State for", (tunnel) => lasted((now - tunnel.since) / 1000)),
  text("Set-up", (tunnel) => setupText(tunnel.setup), (tunnel) => setupLook(tunnel.setup)),
  text("Round trip, phone", (tunnel) => ms(tunnel.round_trip_client_ms)),
  text("Round trip, ePDG", (tunnel) => ms(tunnel.round_trip_network_ms)),
], "No tunnel.");

const failures = (row) => Object.entries(row.setups_failed || {}).filter(([, number]) => number > 0);
const operators = new Table($("operators"), "Operators", [
  text("Operator", (row) => or(row.name, "unknown")),
  text("Network", (row) => or(row.plmn)),
  text("Country", (row) => or(row.country)),
  text("Tunnels", (row) => count(row.tunnels)),
  text("Calls", (row) => count(row.calls)),
  text("Set-ups ok", (row) => count(row.setups_ok)),
  text("Set-ups failed", (row) => failures(row).map(([cause, number]) => `${count(number)} ${CAUSES[cause] || words(cause)}`).join(", ") || "0",
    (row) => (failures(row).length ? "bad" : "")),
  text("Clients in the last hour", (row) => `${count(row.clients_ok)} ok, ${count(row.clients_failed)} failed`),
], "No operator's tunnel was seen yet.");

const LEGS = [
  ["client_to_us", "Phone → this box", "your Wi-Fi and LAN, upwards"],
  ["network_to_us", "Network → this box", "uplink, Internet and carrier, downwards"],
];
const legs = LEGS.map(([key, name, what]) => {
  const value = element("strong", { id: `leg-${key}` });
  const drawing = newSpark();
  $("legs").append(element("figure", {},
    element("figcaption", {}, `${name}: `, value, element("br"), element("span", { class: "quiet" }, what)), drawing,
    element("div", { class: "axis", "aria-hidden": "true" }, element("span", {}, `${MINUTES} minutes ago`), element("span", {}, "now"))));
  return { key, name, value, drawing };
});

function showLegs(minutes) {
  for (const { key, name, value, drawing } of legs) {
    const all = minutes.map((minute) => minute[key] || {});
    const lost = all.reduce((sum, minute) => sum + (minute.lost || 0), 0);
    const came = all.reduce((sum, minute) => sum + (minute.received || 0), 0);
    const share = came + lost ? `${percent((lost * 100) / (came + lost))} lost` : "no call";
    const of = came + lost ? ` (${count(lost)} of ${count(came + lost)})` : "";
    const said = `${share} in ${minutes.length <= 1 ? "the last minute" : `${minutes.length} minutes`}${of}`;
    put(value, said);
    const worst = Math.max(0, ...all.map((minute) => minute.loss_percent || 0));
    spark(drawing, all.map((minute) => ({ came: minute.received || 0, lost: minute.lost || 0 })), MINUTES,
      `${name}, by minute: ${said}, ${percent(worst)} in the worst minute`);
  }
}

const SIDES = [
  ["client", "My side", "Wi-Fi and LAN, between phones and this box"],
  ["network", "Network side", "uplink and Internet"],
  ["carrier", "Carrier", "its ePDG, and what is behind it"],
];
const TROUBLES = {
  unknown: ["nothing seen to judge by", "quiet"], none: ["✓ nothing wrong seen", "good"],
  some: ["! some trouble", "warn"], bad: ["‼ trouble", "bad"],
};
const sides = SIDES.map(([key, name, what]) => {
  const id = `side-${key}`;
  const verdict = element("p");
  const why = element("ul");
  const box = element("section", { "aria-labelledby": id }, element("h3", { id }, name), element("p", { class: "quiet" }, what), verdict, why);
  $("sides").append(box);
  return { key, box, verdict, why };
});

function showSides(all) {
  for (const { key, box, verdict, why } of sides) {
    const side = all[key] || {};
    const [words, look] = TROUBLES[side.trouble] || TROUBLES.unknown;
    put(verdict, words);
    mark(verdict, look);
    mark(box, look);
    const shown = [...why.children].map((item) => item.textContent);
    const reasons = side.why || [];
    why.hidden = reasons.length === 0;
    if (shown.length !== reasons.length || shown.some((reason, i) => reason !== reasons[i])) {
      why.replaceChildren(...reasons.map((reason) => element("li", {}, reason)));
    }
  }
}

function showNow(overview) {
  const by = overview.tunnels || {};
  facts($("now"), [
    ["Calls", count(overview.calls_active)],
    ["One-way calls", count(overview.calls_one_way), overview.calls_one_way ? "bad" : ""],
    ["Calls so far", count(overview.calls_total)],
    ["Tunnels up", count((by.up || 0) + (by.call || 0))],
    ["Idle", count(by.idle)],
    ["Setting up", count(by.setting_up)],
    ["Set-up failed", count(by.failed), by.failed ? "bad" : ""],
  ]);
}

function showHealth(health) {
  const problems = health.problems || [];
  const place = $("problems");
  const shown = [...place.querySelectorAll("li")].map((item) => item.textContent);
  if (!place.firstChild || shown.length !== problems.length || shown.some((problem, i) => problem !== problems[i])) {
    place.replaceChildren(problems.length
      ? element("ul", {}, ...problems.map((problem) => element("li", { class: "bad" }, problem)))
      : element("p", { class: health.ready ? "good" : "warn" }, health.ready ? "✓ Everything is in order." : "Not ready yet."));
  }
  const dns = Object.entries(health.dns || {}).filter(([, number]) => number > 0).map(([what, number]) => `${count(number)} ${what}`);
  const timeout = health.nat_timeout_seconds;
  facts($("health"), [
    ["Names looked up", dns.join(", ") || "none"],
    ["Flows", `${count(health.flows)} of ${count(health.flows_limit)}`],
    ["Events lost", count(health.events_dropped), health.events_dropped ? "warn" : ""],
    ["Hooks", (health.hooks || []).join(", ") || "none", (health.hooks || []).length ? "" : "bad"],
    ["Not attached", count(health.hooks_missing), health.hooks_missing ? "bad" : ""],
    ["NAT timeout", known(timeout) ? `${lasted(timeout)}; ${health.nat_timeout_shorter ? count(health.nat_timeout_shorter) : "no"} tunnels keep alive more rarely` : "no connection tracking here", health.nat_timeout_shorter ? "warn" : ""],
  ]);
}

const wanted = () => $("filter").value.trim().toLowerCase();

// What was typed since the agent was asked.
function filtered(list) {
  const words = wanted().split(/\s+/).filter(Boolean);
  if (!words.length) return list;
  return list.filter((tunnel) => {
    const all = [tunnel.client, tunnel.endpoint, tunnel.operator, tunnel.country, STATES[tunnel.state], ...(tunnel.owners || [])]
      .join(" ").toLowerCase();
    return words.every((word) => all.includes(word));
  });
}

// --- who phones are ---

// Kept for this tab only. What a header can carry (RFC 6750 §2.1).
const TOKEN = /^[A-Za-z0-9._~+/=-]+$/;
let token = "";
let refused = false;

// Where a site may keep nothing, the browser throws: then the token is known until the page is left.
function stored(use) {
  try {
    return use(window.sessionStorage);
  } catch {
    return null;
  }
}
token = stored((storage) => storage.getItem("token")) || "";

function keep(value) {
  token = value;
  stored((storage) => (value ? storage.setItem("token", value) : storage.removeItem("token")));
}

function showWho(clients) {
  const shown = clients === undefined || clients === "shown";
  $("who").hidden = shown && !token;
  $("who-form").hidden = clients !== "by_token";
  $("who-forget").hidden = !token;
  const why = refused ? "That is not the token. " : "";
  put($("who-said"), {
    by_token: `${why}Phones are shown by keyed hashes. With the token of agent.token_file, by their addresses.`,
    hashed: "Phones are shown by keyed hashes, for this is not loopback: set agent.token_file, and a token shows their addresses.",
  }[clients] || "Phones are shown by their addresses, with the token.");
}

$("who-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  $("token").value = "";
  refused = !TOKEN.test(given);
  if (!refused) keep(given);
  ask();
});
$("who-forget").addEventListener("click", () => {
  keep("");
  ask();
  $("filter").focus();
});

let last = null;

function show({ overview, list, found, filter }) {
  now = overview.now || list.now;
  const enabled = overview.enabled !== false;
  const all = list.tunnels || [];
  $("off").hidden = enabled;
  $("empty").hidden = !enabled || list.total > 0;
  put($("agent"), `runs for ${lasted(overview.uptime_seconds)}; as of ${clock(now)}`);
  showSides(overview.sides || {});
  showWho(list.clients);
  showNow(overview);
  showLegs(overview.minutes || []);
  const going = [];
  for (const tunnel of all) {
    const call = (tunnel.calls || [])[0];
    if (call && !known(call.ended)) going.push({ tunnel, call });
  }
  const more = (overview.calls_active || 0) - going.length;
  calls.show(going, ({ tunnel }) => tunnel.id, going.length && more > 0 && all.length >= ROWS ? `${count(more)} more are not shown.` : "");
  const those = filtered(found.tunnels || []);
  const isAnswered = filter === wanted();
  const hidden = isAnswered ? found.found - those.length : 0;
  const missing = isAnswered ? `None of ${count(list.total)} tunnels has that.` : "Asking the agent…";
  const none = list.total && !those.length ? missing : "";
  tunnels.show(those, (tunnel) => tunnel.id,
    hidden > 0 ? `${count(hidden)} more are not shown: say more of those that you look for.` : none);
  operators.show(overview.operators || [], (row) => `${row.plmn}/${row.name}`, "");
  showHealth(overview.health || {});
  tell(overview);
}

// A few words when something has changed, for those who hear the page.
let told = "";
let toldAt = 0;
function tell(overview) {
  const words = [`${count(overview.calls_active)} calls`];
  if (overview.calls_one_way) words.push(`${count(overview.calls_one_way)} one-way`);
  if (overview.tunnels?.failed) words.push(`${count(overview.tunnels.failed)} set-ups failed`);
  for (const [key, name] of SIDES) {
    if (overview.sides?.[key]?.trouble === "bad") words.push(`trouble: ${name}`);
  }
  const problems = (overview.health?.problems || []).length;
  if (problems) words.push(`${count(problems)} problems`);
  const said = words.join(", ");
  const at = performance.now();
  if (said === told || at - toldAt < SAY_MS) return;
  told = said;
  toldAt = at;
  put($("said"), said);
}

// --- asking ---

let timer = 0;
let asking = false;
let paused = false;
let failedSince = 0;
let unanswered = 0;
let took = 0;

async function get(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { cache: "no-store", headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401 && token) {
    refused = true;
    keep("");
    return get(path);
  }
  if (!answer.ok) throw new Error(`${path} says ${answer.status}: ${(await answer.text()).trim().slice(0, 300)}`);
  return answer.json();
}

async function ask() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  const start = performance.now();
  try {
    const filter = wanted();
    const some = `/api/v1/tunnels?limit=${ROWS}`;
    const [overview, list, found] = await Promise.all([get("/api/v1/overview"), get(some),
      filter && get(`${some}&filter=${encodeURIComponent(filter)}`)]);
    failedSince = 0;
    unanswered = 0;
    took = performance.now() - start;
    $("trouble").hidden = true;
    if (token) refused = false;
    last = { overview, list, found: found || list, filter };
    show(last);
  } catch (error) {
    failedSince ||= Date.now();
    unanswered += 1;
    const old = last ? ` What is below was so at ${clock(now)}.` : "";
    const late = `it has not answered within ${PATIENCE_MS / 1000} seconds`;
    const why = error.name === "TimeoutError" ? late : error instanceof TypeError ? "it does not answer" : error.message;
    put($("trouble"), `No news from the agent since ${clock(failedSince)}: ${why}.${old} Is it running? “wificall status” on the box tells, and its log why not. This page goes on asking.`);
    $("trouble").hidden = false;
    put($("agent"), "does not answer");
  } finally {
    asking = false;
    document.body.dataset.asked = String(Number(document.body.dataset.asked || 0) + 1);
    next();
  }
}

// Milliseconds until the agent is asked again.
function pace() {
  if (last && !unanswered && last.filter !== wanted()) return TYPED_MS;
  const every = unanswered ? EVERY_MS * 2 ** Math.min(unanswered - 1, 10) : took * PART;
  return Math.min(EVERY_MOST_MS, Math.max(EVERY_MS, every));
}

function next() {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(ask, pace());
}

document.addEventListener("visibilitychange", () => (document.hidden || paused ? clearTimeout(timer) : ask()));
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  if (!paused) ask();
  else clearTimeout(timer);
});
$("filter").addEventListener("input", () => {
  if (last) show(last);
  clearTimeout(timer);
  timer = setTimeout(ask, TYPED_MS);
});
ask();
