"use strict";
(() => {
const SPAN = 600, MINUTES = 10, EVERY = 1000, LIMIT = 3000;
// Keys that expire within so many milliseconds are named above all others, at most so many of them.
const SOON = 30 * 86400 * 1000, MOST_NAMED = 10;
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// Names come from key files and may look like markup: everything goes in as text.
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const dress = (node, name) => { if (node.className !== name) node.className = name; };
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  return node;
};

const bytes = n => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) { n /= 1000; unit++; }
  return (unit === 0 || n >= 99.95 ? Math.round(n) : n.toPrecision(n >= 9.995 ? 3 : 2)) + " " + units[unit];
};
const rate = n => bytes(n) + "/s";
const count = n => n.toLocaleString("en");
const many = (n, one, more) => count(n) + " " + (n === 1 ? one : more || one + "s");
const span = seconds => {
  const s = Math.max(0, Math.floor(seconds)), two = n => String(n).padStart(2, "0");
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + two(s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + two(Math.floor(s / 60) % 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s / 3600) % 24 + " h";
};
const day = time => time ? time.replace("T", " ").replace("Z", " UTC") : "";
let now = 0;
const ago = time => {
  const passed = (now - Date.parse(time)) / 1000;
  return passed < 1 ? "just now" : passed >= 0 ? span(passed) + " ago" : "";
};
const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);
const total = map => Object.values(map).reduce((all, one) => all + one, 0);

// Keeps the element of whoever is still there: focus, selection and open details survive a look.
const keyed = (parent, list, key, create, update) => {
  const old = parent.kept || new Map(), kept = new Map();
  let place = parent.firstChild;
  for (const one of list) {
    let name = key(one);
    while (kept.has(name)) name += "+";
    const node = old.get(name) || create(one);
    old.delete(name);
    kept.set(name, node);
    if (node === place) place = place.nextSibling; else parent.insertBefore(node, place);
    update(node, one);
  }
  for (const node of old.values()) node.remove();
  parent.kept = kept;
};

// A table's columns: heading, class, text, and a second line where there is one.
const SESSION = [
  ["Identity", "", s => s.identity, s => s.wire ? "as " + s.wire : ""],
  ["Peer", "", s => s.peer, s => "№ " + s.number],
  ["Target", "", s => s.target],
  ["Age", "n", s => span(s.age), s => s.idle >= 10 ? "idle " + span(s.idle) : ""],
  ["Up", "n", s => bytes(s["bytes-up"]), s => rate(s["rate-up"])],
  ["Down", "n", s => bytes(s["bytes-down"]), s => rate(s["rate-down"])],
  ["Records", "n", s => count(s["records-up"]) + " up", s => count(s["records-down"]) + " down"],
  ["Key updates", "n", s => count(s["key-updates-up"]) + " up", s => count(s["key-updates-down"]) + " down"],
  ["Negotiated", "", s => s.version + (s.group ? ", " + s.group : ""), s => s.suite],
];
const IDENTITY = [
  ["Identity", "", i => i.identity, i => i.wire !== i.identity ? "as " + i.wire : ""],
  ["Last use", "t", i => i["last-use"] ? ago(i["last-use"]) : "not since the start"],
  ["Uses", "n", i => count(i.uses)],
  ["Open", "n", i => count(i.sessions)],
  ["Key expires", "t", i => i.expired ? "✕ expired" : i.expires ? day(i.expires) : "never", i => i.expired ? day(i.expires) : ""],
  ["Written in", "", i => i.file + ":" + i.line],
];
// What each code of `pskgate explain` means.
const WORDS = {
  "aborted": "left before it was accepted",
  "alert": "the other end refused the handshake",
  "bad-proxy-header": "no valid PROXY header",
  "closed-early": "closed during the handshake",
  "crowded-out": "closed to make room for others",
  "expired": "the key has expired",
  "full": "no session free",
  "io": "the connection failed",
  "no-common-group": "no key exchange group in common",
  "no-common-suite": "no cipher suite in common",
  "no-common-version": "no TLS version in common",
  "no-psk": "no pre-shared key offered",
  "not-allowed-from": "address not in allow-from",
  "not-proven": "the key was not proven",
  "other-hash": "key for another hash",
  "plain-text": "not TLS",
  "protocol": "broken TLS",
  "psk-ke-only": "key without Diffie-Hellman exchange",
  "refused": "the server refused the identity or key",
  "socket-options": "a socket option cannot be set",
  "stale-ticket": "old session of a removed or changed key",
  "target-unreachable": "no target answers",
  "timeout": "handshake took too long",
  "too-many-offers": "too many keys offered at once",
  "unknown-identity": "unknown identity",
  "wrong-key": "wrong key",
  "complete": "finished by both sides",
  "drain-expired": "cut at the stop of the program",
  "draining": "idle at the stop of the program",
  "half-closed": "finished by one side, the other silent",
  "idle": "no data for idle-timeout",
  "key-update-flood": "too many key updates",
  "kicked": "ended by an operator",
  "not-served": "ended at once by the server end",
  "plain-side": "the plain connection failed",
  "revoked": "key removed or changed",
  "session-lifetime": "session-lifetime reached",
  "taken-over": "replaced by a newer session",
  "tls-side": "the TLS connection failed",
  "truncated": "dropped without a TLS close",
};
const meaning = code => WORDS[code] || code;
const REFUSAL = [
  ["Peer", "", r => r.peer],
  ["When", "t", r => ago(r.time) || day(r.time)],
  ["Identity", "", r => r.identity || (r.cause === "unknown-identity" ? "unknown identity" : "")],
  ["Cause", "", r => meaning(r.cause), r => r.cause],
  ["Times", "n", r => count(r.count)],
];
const CAUSE = [["Cause", "", c => meaning(c[0]), c => c[0]], ["Connections", "n", c => count(c[1])]];

const table = (words, columns) => {
  const box = make("div", "wrap"), all = make("table"), head = make("tr"), body = make("tbody");
  const caption = make("caption", "aside", words);
  // Narrow windows lay the cells out as blocks, which would take a table's meaning from it.
  all.setAttribute("role", "table");
  body.setAttribute("role", "rowgroup");
  head.setAttribute("role", "row");
  for (const [title, name] of columns) {
    const cell = make("th", name, title);
    cell.scope = "col";
    cell.setAttribute("role", "columnheader");
    head.append(cell);
  }
  const top = make("thead");
  top.append(head);
  all.append(caption, top, body);
  box.append(all);
  box.fill = (list, key) => keyed(body, list, key, () => {
    const row = make("tr");
    row.setAttribute("role", "row");
    columns.forEach(([title, name], at) => {
      const cell = make(at ? "td" : "th", name);
      if (at) cell.dataset.of = title; else cell.scope = "row";
      cell.setAttribute("role", at ? "cell" : "rowheader");
      const value = make("span"), main = make("span"), sub = make("span", "sub");
      value.append(main, " ", sub);
      cell.append(value);
      cell.parts = [main, sub];
      row.append(cell);
    });
    return row;
  }, (row, one) => columns.forEach(([, , main, sub], at) => {
    const parts = row.children[at].parts, second = sub ? sub(one) : "";
    put(parts[0], main(one));
    put(parts[1], second);
    parts[1].hidden = !second;
  }));
  return box;
};

const service = one => {
  const card = make("section", "card"), title = make("div", "title"), p = card.parts = {};
  p.name = make("h2");
  p.name.id = "s-" + Math.random().toString(36).slice(2);
  card.setAttribute("aria-labelledby", p.name.id);
  p.mode = make("span", "small");
  p.state = make("span", "state push");
  title.append(p.name, p.mode, p.state);
  p.route = make("p", "route");
  p.failure = make("p", "failure");
  p.warnings = make("p", "failure");
  p.expiring = make("p", "failure");
  p.missing = make("p", "failure");
  p.facts = make("p", "facts");
  p.none = make("p", "none", "No open session.");
  p.headSessions = make("h3", "", "Open sessions");
  p.sessions = table("Open sessions", SESSION);
  p.headRefused = make("h3", "", "Refused connections, by cause");
  p.refused = table("Refused connections, by cause", CAUSE);
  p.refused.classList.add("tight");
  p.recent = make("details", "recent");
  p.recentSummary = make("summary");
  p.recentTable = table("Recent refusals", REFUSAL);
  p.recent.append(p.recentSummary, p.recentTable);
  p.keys = make("details");
  p.summary = make("summary");
  p.identities = table("Identities and their keys", IDENTITY);
  p.keys.append(p.summary, p.identities);
  card.append(title, p.route, p.failure, p.warnings, p.expiring, p.missing, p.facts, p.none, p.headSessions, p.sessions, p.headRefused, p.refused, p.recent, p.keys);
  return card;
};

// Keys whose time is over, or nearly: the next to go first.
const expiring = identities => {
  const soon = identities.filter(i => i.expires && (i.expired || Date.parse(i.expires) - now < SOON))
    .sort((a, b) => Date.parse(a.expires) - Date.parse(b.expires));
  const words = i => i.identity + (i.wire !== i.identity ? " (as " + i.wire + ")" : "") +
    (i.expired ? " has expired" : " in " + span((Date.parse(i.expires) - now) / 1000)) + ", " + day(i.expires);
  const more = soon.length > MOST_NAMED ? " · and " + many(soon.length - MOST_NAMED, "more key", "more keys") : "";
  return soon.length ? "⚠ Keys that expire within 30 days: " + soon.slice(0, MOST_NAMED).map(words).join(" · ") + more : "";
};

const showService = phase => (card, s) => {
  const p = card.parts, listens = s.listeners.length > 0;
  put(p.name, s.name);
  put(p.mode, s.mode === "client" ? "client end: accepts plain, connects TLS" : s.mode === "server" ? "server end: accepts TLS, connects plain" : "");
  const [name, words] = phase !== "running" ? ["warn", "◐ takes no new sessions"]
    : listens ? ["good", "● listening"] : ["", "○ no listener of its own"];
  put(p.state, words);
  dress(p.state, "state push " + name);
  put(p.route, (s.listeners.join(", ") || "–") + " → " + (s.targets.join(", ") || "–"));
  const missing = s["missing-listeners"] || [];
  p.missing.hidden = missing.length === 0;
  put(p.missing, missing.map(one => "⚠ Does not listen on " + one.address + ", tried again: " + one.error).join(" · "));
  const failure = s["last-failure"];
  p.failure.hidden = !failure;
  if (failure) put(p.failure, "⚠ Last failure, " + (ago(failure.time) || day(failure.time)) + ": " + failure.words);
  const warnings = s["key-warnings"] || [];
  p.warnings.hidden = warnings.length === 0;
  put(p.warnings, warnings.map(one => "⚠ " + one).join(" · "));
  const soon = expiring(s.identities);
  p.expiring.hidden = !soon;
  put(p.expiring, soon);
  const ends = Object.entries(s.ended).map(([end, n]) => meaning(end) + " " + count(n)).join(", ");
  const facts = [
    [s["max-sessions"] ? count(s.sessions.length) + " of " + count(s["max-sessions"]) : count(s.sessions.length), "sessions open"],
    [count(s.opened), "opened so far"],
    [count(s.handshakes), "in handshake"],
    [bytes(s["bytes-up"]), "up"], [bytes(s["bytes-down"]), "down"],
  ];
  if (ends) facts.push(["ended:", ends]);
  keyed(p.facts, facts, f => f[1].split(" ")[0], () => {
    const fact = make("span");
    fact.append(make("b"), " ", make("span"));
    return fact;
  }, (fact, [figure, words]) => { put(fact.firstChild, figure); put(fact.lastChild, words); });
  const some = s.sessions.length > 0;
  p.none.hidden = some;
  p.headSessions.hidden = p.sessions.hidden = !some;
  p.sessions.fill(s.sessions, one => String(one.number));
  const causes = Object.entries(s.refused).sort((a, b) => b[1] - a[1]);
  p.headRefused.hidden = p.refused.hidden = causes.length === 0;
  p.refused.fill(causes, c => c[0]);
  const recent = s["recent-refusals"] || [], newest = recent[0];
  p.recent.hidden = !newest;
  if (newest) put(p.recentSummary, "Recent refusals, the last " + (ago(newest.time) || day(newest.time)) + " from " + newest.peer + ": " + meaning(newest.cause));
  // A table that nobody looks at costs nothing.
  if (p.recent.open) p.recentTable.fill(recent, r => [r.peer.replace(/:\d+$/, ""), r.identity, r.cause].join(" "));
  p.keys.hidden = s.identities.length === 0;
  const gone = s.identities.filter(i => i.expired).length;
  put(p.summary, many(s.keys || s.identities.length, "key") + (gone ? ", " + count(gone) + " expired" : ""));
  if (p.keys.open) p.identities.fill(s.identities, i => i.file + ":" + i.line);
};

const showServices = () => keyed($("services"), last.services, s => s.name, service, showService(last.phase));

// Traffic: figures since the start, a sample a second after those that the program has kept; what is drawn is
// their difference.
let samples = [], last = null;
const remember = status => {
  const sample = { at: performance.now() / 1000, all: [0, 0], of: new Map() };
  for (const s of status.services) {
    const one = sample.of.get(s.name) || [0, 0];
    for (const sums of [one, sample.all]) { sums[0] += s["bytes-up"]; sums[1] += s["bytes-down"]; }
    sample.of.set(s.name, one);
  }
  if (last && last.started !== status.started) samples = [];
  samples.push(sample);
  while (samples.length > 2 && sample.at - samples[1].at > SPAN) samples.shift();
};
const recall = async () => {
  const stop = new AbortController(), clock = setTimeout(() => stop.abort(), LIMIT);
  try {
    const kept = await (await fetch("/history.json", { signal: stop.signal, cache: "no-store" })).json();
    const here = performance.now() / 1000;
    samples = kept.map(sample => ({ at: here - sample.age, all: sample.all, of: new Map(Object.entries(sample.services)) }));
  } catch {
    // The chart begins empty.
  } finally {
    clearTimeout(clock);
  }
};
const rates = which => {
  const of = sample => which ? sample.of.get(which) : sample.all, points = [];
  for (let i = 1; i < samples.length; i++) {
    const a = of(samples[i - 1]), b = of(samples[i]), time = samples[i].at - samples[i - 1].at;
    if (a && b && time > 0) points.push({ at: samples[i].at, gap: time > 3 * LIMIT / 1000, up: Math.max(0, b[0] - a[0]) / time, down: Math.max(0, b[1] - a[1]) / time });
  }
  return points;
};
// 1, 2 or 5 times a power of ten, above all of it.
const ceiling = top => {
  const power = 10 ** Math.floor(Math.log10(Math.max(top, 1)));
  return Math.max(10, [1, 2, 5, 10].map(n => n * power).find(n => n >= top));
};
const draw = () => {
  const points = rates($("which").value), chart = $("chart");
  const width = Math.max(chart.clientWidth, 200), height = Math.max(chart.clientHeight, 100);
  const left = 66, right = width - 8, top = 8, bottom = height - 20;
  chart.setAttribute("viewBox", "0 0 " + width + " " + height);
  const end = performance.now() / 1000, most = ceiling(points.reduce((m, p) => Math.max(m, p.up, p.down), 0));
  const x = at => right - (end - at) / SPAN * (right - left), y = n => bottom - n / most * (bottom - top);
  const grid = [], ticks = [];
  for (const part of [0, .5, 1]) {
    grid.push([left, y(part * most), right, y(part * most)]);
    ticks.push([left - 8, y(part * most) + 4, "end", part ? rate(part * most) : "0"]);
  }
  for (const minutes of [10, 8, 6, 4, 2, 0]) {
    if (width < 480 && minutes % MINUTES) continue;
    const at = right - minutes / MINUTES * (right - left);
    ticks.push([at, height - 4, minutes === 0 ? "end" : minutes === MINUTES ? "start" : "middle", minutes ? minutes + " min ago" : "now"]);
  }
  const node = name => () => document.createElementNS(SVG, name);
  keyed($("grid"), grid, l => String(grid.indexOf(l)), node("line"), (line, l) => ["x1", "y1", "x2", "y2"].forEach((name, i) => line.setAttribute(name, l[i])));
  keyed($("ticks"), ticks, t => String(ticks.indexOf(t)), node("text"), (text, t) => {
    text.setAttribute("x", t[0]); text.setAttribute("y", t[1]); text.setAttribute("text-anchor", t[2]);
    put(text, t[3]);
  });
  for (const way of ["up", "down"]) {
    let line = "", area = "", from = 0;
    points.forEach((p, i) => {
      const spot = x(p.at).toFixed(1) + " " + y(p[way]).toFixed(1), start = i === 0 || p.gap;
      if (start && i) area += "L" + x(points[i - 1].at).toFixed(1) + " " + bottom + "Z";
      line += (start ? "M" : "L") + spot;
      area += (start ? "M" + x(p.at).toFixed(1) + " " + bottom + "L" : "L") + spot;
      from = p.at;
    });
    if (points.length) area += "L" + x(from).toFixed(1) + " " + bottom + "Z";
    $("line-" + way).setAttribute("d", line);
    $("area-" + way).setAttribute("d", area);
  }
  const newest = points[points.length - 1];
  const peak = way => rate(points.reduce((m, p) => Math.max(m, p[way]), 0));
  put($("chart-words"), newest ? "Now " + rate(newest.up) + " up and " + rate(newest.down) + " down; at most " + peak("up") + " and " + peak("down") + " in the time shown (at most ten minutes, since the program was started)." : "Waiting for data …");
};

const show = status => {
  now = Date.parse(status.now);
  remember(status);
  last = status;
  const [name, words] = { running: ["good", "● running"], draining: ["warn", "◐ draining"] }[status.phase] || ["bad", "■ " + status.phase];
  put($("phase"), words);
  dress($("phase"), "state " + name);
  put($("version"), status.version);
  put($("host"), status.host ? "on " + status.host : "");
  put($("file"), status.file);
  put($("uptime"), "up for " + span(status.uptime));
  put($("openssl"), status.openssl);
  const all = status.services;
  put($("f-sessions"), count(sum(all, s => s.sessions.length)));
  put($("f-opened"), count(sum(all, s => s.opened)) + " opened since the start");
  put($("f-refused"), count(sum(all, s => total(s.refused))));
  put($("f-handshakes"), many(sum(all, s => s.handshakes), "handshake") + " under way");
  put($("f-up-all"), bytes(sum(all, s => s["bytes-up"])) + " since the start");
  put($("f-down-all"), bytes(sum(all, s => s["bytes-down"])) + " since the start");
  const { done, failed, last: reload } = status.reloads;
  put($("f-reload"), reload ? reload.done ? "✓ done" : "✕ refused" : "none yet");
  dress($("f-reload"), reload && !reload.done ? "words bad-words" : "words");
  put($("f-reload-when"), reload ? (ago(reload.time) || day(reload.time)) + "; " + count(done) + " done, " + count(failed) + " refused" : "as it was started");
  const since = status.reloads["differs-since"];
  $("f-differs").hidden = !since;
  put($("f-differs"), since ? "⚠ a change on disk is not in force, found " + (ago(since) || day(since)) : "");
  const findings = reload ? [...(reload.error ? [reload.error] : []), ...reload.findings.filter(f => f !== reload.error)] : [];
  $("reload").hidden = findings.length === 0;
  keyed($("findings"), findings, f => f, () => make("li"), put);
  const names = [...new Set(all.map(s => s.name))], which = $("which");
  keyed(which, [["", "all services"], ...names.map(n => [n, n])], n => "=" + n[0], n => {
    const option = make("option");
    option.value = n[0];
    return option;
  }, (option, n) => put(option, n[1]));
  showServices();
  draw();
  // The figures are of all services, whatever the chart shows.
  const newest = rates("").pop();
  put($("f-up"), newest ? rate(newest.up) : "–");
  put($("f-down"), newest ? rate(newest.down) : "–");
  const sessions = sum(all, s => s.sessions.length);
  const title = (sessions ? "(" + sessions + ") " : "") + "pskgate" + (status.host ? " on " + status.host : "") + (status.phase === "running" ? "" : ", " + status.phase);
  if (document.title !== title) document.title = title;
};

let silent = null;
const missing = why => {
  silent = silent || new Date();
  $("notice").hidden = false;
  put($("notice"), "⚠ No answer from pskgate since " + silent.toLocaleTimeString() + " (" + why + "). What is shown below is older.");
  put($("phase"), "■ no answer");
  dress($("phase"), "state bad");
};
const look = async () => {
  const stop = new AbortController(), clock = setTimeout(() => stop.abort(), LIMIT);
  try {
    const answer = await fetch("/status.json", { signal: stop.signal, cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).trim() || "HTTP " + answer.status);
    const status = await answer.json();
    silent = null;
    $("notice").hidden = true;
    show(status);
  } catch (error) {
    missing(error.name === "AbortError" ? "it took too long" : error.name === "TypeError" ? "it cannot be reached" : error.message);
    if (last) draw();
  } finally {
    clearTimeout(clock);
    setTimeout(look, EVERY);
  }
};
document.addEventListener("toggle", () => last && showServices(), true);
$("which").addEventListener("change", () => last && draw());
addEventListener("resize", () => last && draw());
$("which").textContent = "";
recall().then(look);
})();
