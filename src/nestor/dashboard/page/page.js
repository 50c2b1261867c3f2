// The page: which study and which part of it the address names, and asking again for what changed.

import { STATES, Study, ask, duration, figure, make, moment, numberOf, seconds, stateChip } from "./data.js";
import * as pictures from "./pictures.js";
import { Table } from "./table.js";

const main = document.getElementById("main");
const drawer = document.getElementById("drawer");
const live = document.getElementById("live");
const MOST_SLICES = 24;
const MOST_AXES = 12;

let study = null; // the one that is shown
let view = null; // the part of it that is shown: {name, element, update}
let turn = 0; // grows with every new address; what was asked for an older one is dropped
let quiet = 0; // polls since something changed

// --- addresses: #/ and #/STUDY/PART/TRIAL ------------------------------------------------------

const parts = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decode);
const decode = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};
const address = (...names) => `#/${names.map((name) => encodeURIComponent(name)).join("/")}`;
const openTrial = (number) => (location.hash = address(study.name, view.name, number));

async function go() {
  const mine = ++turn;
  const [name, part = "overview", number] = parts();
  if (name === undefined) {
    study = view = null;
    drawer.hidden = true;
    document.title = "Nestor";
    return poll(mine);
  }
  document.title = `${name} · Nestor`;
  if (study?.name !== name) {
    study = new Study(name);
    view = null;
    main.replaceChildren(make("p", { class: "message" }, "Reading the study …"));
  }
  if (study.id !== null && view?.name !== part) show(part);
  showTrial(number);
  poll(mine);
}

// --- asking for what changed -------------------------------------------------------------------

async function poll(mine) {
  if (mine !== turn) return;
  if (!document.hidden) {
    try {
      if (study === null) await listStudies(mine);
      else await follow(mine);
      if (mine === turn) say("live", "live");
    } catch (error) {
      if (mine !== turn) return;
      fail(error);
    }
  }
  // A study that changes is asked for every second, a quiet one every three.
  setTimeout(() => poll(mine), quiet < 5 ? 1000 : 3000);
}

document.addEventListener("visibilitychange", () => document.hidden || go());
window.addEventListener("hashchange", go);

async function follow(mine) {
  const mineStudy = study;
  const before = study.version;
  await mineStudy.update(() => mine === turn && refresh());
  if (mine !== turn) return;
  quiet = study.version === before ? quiet + 1 : 0;
  if (study.version !== before || view === null) refresh();
  else if (view.always) view.update();
}

function refresh() {
  if (view === null || view.shows !== what()) {
    show(parts()[1] || "overview");
    return;
  }
  heading();
  view.update();
  const number = parts()[2];
  if (number !== undefined) showTrial(number);
}

function fail(error) {
  const away = error.status === undefined ? "the server is gone" : "the storage does not answer";
  if (error.status === undefined || (error.status >= 500 && (view !== null || main.querySelector(".studies")))) {
    say("lost", `${away}; asking again`); // what is shown stays
    return;
  }
  say("lost", error.status >= 500 ? away : "not found");
  study = study === null ? null : new Study(study.name);
  view = null;
  drawer.hidden = true;
  main.replaceChildren(make("p", { class: "message", role: "alert" }, error.message, make("br"), make("a", { href: "#/" }, "All studies")));
}

function say(state, text) {
  live.dataset.state = state;
  if (live.textContent !== text) live.textContent = text;
}

// --- all studies -------------------------------------------------------------------------------

const summaries = new Map();
let rowOf = new Map(); // the row of each study
const AT_ONCE = 20; // summaries that are asked for in one poll; the next poll goes on with the next
let nestedToo = false;
let next = 0;

async function listStudies(mine) {
  const { storage, studies, nested } = await ask("studies", nestedToo ? { nested: 1 } : {});
  if (mine !== turn) return;
  document.getElementById("where").textContent = storage;
  const text = JSON.stringify([studies, nested]);
  const fresh = main.dataset.list !== text || !main.querySelector(".studies, .empty");
  if (fresh) {
    main.dataset.list = text;
    main.replaceChildren(make("div", { class: "head" }, make("h1", {}, "Studies"), nested ? nestedBox(nested) : null), studiesTable(studies));
    rowOf = new Map([...main.querySelectorAll("tr[data-study]")].map((row) => [row.dataset.study, row]));
    for (const { name } of studies) if (summaries.has(name)) fillRow(name, summaries.get(name));
    next = 0;
  }
  // Each is read once by the server; one after the other, so that the list is there at once.
  let changed = fresh;
  for (let k = 0; k < Math.min(AT_ONCE, studies.length); k++) {
    const { name } = studies[next++ % studies.length];
    const summary = await ask("summary", { study: name }).catch(() => null);
    if (mine !== turn || summary === null) return;
    changed ||= summaries.get(name)?.place !== summary.place;
    summaries.set(name, summary);
    fillRow(name, summary);
  }
  quiet = changed ? 0 : quiet + 1;
}

function nestedBox(count) {
  const box = make("input", { type: "checkbox", id: "nested", checked: nestedToo, onchange: () => ((nestedToo = box.checked), go()) });
  return make("label", {}, box, `with ${count} nested`);
}

function studiesTable(studies) {
  if (!studies.length) return make("p", { class: "message empty" }, "There is no study here yet. It appears when one is created.");
  const heads = [["Study"], ["Trials", "right"], ["Best", "right"], ["Direction", "wide"], ["Created", "wide"]];
  const rows = studies.map(({ name, directions, created }) =>
    make("tr", { "data-study": name },
      make("td", {}, make("a", { href: address(name) }, name)),
      make("td", { class: "right" }), make("td", { class: "right" }),
      make("td", { class: "wide quiet" }, directions.join(", ")), make("td", { class: "wide quiet number" }, moment(created))));
  return make("div", { class: "card" }, make("table", { class: "studies" },
    make("thead", {}, make("tr", {}, heads.map(([text, kind]) => make("th", { class: kind || "" }, text)))),
    make("tbody", {}, rows)));
}

function fillRow(name, { states, best, front }) {
  const row = rowOf.get(name);
  if (!row) return;
  const running = states.RUNNING ? ` (${states.RUNNING} running)` : "";
  row.children[1].textContent = Object.values(states).reduce((a, b) => a + b, 0) + running;
  row.children[2].textContent = best ? best.values.map((value) => figure(numberOf(value), 6)).join(", ") : front ? `a front of ${front}` : "";
}

// --- one study ---------------------------------------------------------------------------------

const VIEWS = { overview, trials, slice, parallel, curves, timeline };
const NAMES = { overview: "Overview", trials: "Trials", slice: "Parameters", parallel: "Parallel", curves: "Curves", timeline: "Timeline" };

function show(part) {
  const name = Object.hasOwn(VIEWS, part) ? part : "overview";
  const head = make("div", { class: "head", id: "head" });
  const tabs = make("nav", { class: "tabs", "aria-label": "Parts of the study" },
    Object.entries(NAMES).map(([key, text]) => make("a", { href: address(study.name, key), "aria-current": key === name ? "page" : null }, text)));
  view = { name: part, shows: what(), ...VIEWS[name]() };
  main.replaceChildren(head, tabs, view.element);
  delete main.dataset.list;
  heading();
  view.update();
}

// Another study of this name, or other names of objectives, and the part is made anew.
const what = () => JSON.stringify([study.id, study.directions, study.names]);

function heading() {
  const head = document.getElementById("head");
  const chips = [...study.counts()].sort(([a], [b]) => b - a).map(([state, count]) => stateChip(state, count));
  head.replaceChildren(make("h1", {}, study.name), make("span", { id: "states" }, chips));
}

const card = (title, tools, ...body) =>
  make("section", { class: "card" }, make("header", {}, make("h2", {}, title), tools ? make("div", { class: "tools" }, tools) : null), ...body);

function overview() {
  const several = study.directions.length > 1;
  const tiles = make("div", { class: "tiles" });
  const drawn = [];
  const cards = [];
  if (several) cards.push(paretoCard(drawn));
  study.directions.forEach((_, k) => {
    const { picture, tools } = pictures.history(study, k, openTrial);
    drawn.push(picture);
    cards.push(card(several ? `History of ${study.objective(k)}` : "History", tools, picture.element));
  });
  const shares = make("div", { id: "importance" }, make("p", { class: "quiet small" }, "…"));
  const best = make("div", { id: "best" });
  const notes = make("div", {});
  const element = make("div", { class: "stack" }, tiles, ...cards, make("div", { class: "halves" }, card("Importance of the parameters", null, shares), best), notes);
  let finished = -1;
  const update = () => {
    tiles.replaceChildren(...tilesOf());
    drawn.forEach((picture) => picture.draw());
    best.replaceChildren(bestCard());
    const attrs = Object.entries(study.attrs);
    notes.replaceChildren(...(attrs.length ? [card("Attributes", null, pairs(attrs))] : []));
    const now = study.complete.length;
    if (now !== finished && study.whole) {
      finished = now;
      fillShares(shares);
    }
  };
  return { element, update };
}

function paretoCard(drawn) {
  const count = study.directions.length;
  const choose = (k) => make("select", { "aria-label": "Objective on an axis", onchange: () => picture.draw() },
    study.directions.map((_, i) => make("option", { value: i, selected: i === k }, study.objective(i))));
  const chosen = [choose(0), choose(1)];
  const picture = pictures.pareto(study, () => chosen.map((one) => Number(one.value)), openTrial);
  drawn.push(picture);
  return card("Pareto front", count > 2 ? chosen : null, picture.element);
}

function tilesOf() {
  const known = study.known;
  const spans = known.map(duration).filter((span) => span !== null).sort((a, b) => a - b);
  const best = study.best === null ? null : study.trials[study.best];
  const tile = (name, big, small, data) => make("div", { class: "card tile" }, make("div", { class: "name" }, name), make("div", { class: "big number", ...data }, big), make("div", { class: "quiet small" }, small));
  const ended = known.reduce((last, trial) => Math.max(last, trial.ended ?? 0), 0);
  const first = study.directions.length > 1
    ? tile("Pareto front", String(study.front.size), `of ${study.complete.length} complete trials`)
    : tile(`Best ${study.objective(0)} (${study.directions[0] || ""})`, best ? figure(best.values[0], 6) : "–", best ? `trial ${best.number}` : "no complete trial yet", { id: "best-value", "data-value": best ? String(best.values[0]) : "" });
  return [
    first,
    tile("Trials", String(known.length), study.whole ? `${study.complete.length} complete` : "reading …", { id: "trials" }),
    tile("A trial takes", spans.length ? seconds(spans[Math.floor(spans.length / 2)]) : "–", "median"),
    tile("Last end of a trial", ended ? moment(ended).slice(11) : "–", ended ? moment(ended).slice(0, 10) : ""),
  ];
}

function bestCard() {
  if (study.directions.length > 1) {
    const front = [...study.front].slice(0, 12).map((number) => study.trials[number]).filter(Boolean);
    return card("On the front", null, pairs(front.map((trial) => [trialLink(trial.number), trial.values.map((value) => figure(value)).join(", ")])));
  }
  const best = study.best === null ? null : study.trials[study.best];
  if (!best) return card("Best trial", null, make("p", { class: "quiet small" }, "No complete trial yet."));
  return card("Best trial", trialLink(best.number), pairs(Object.entries(best.params).map(([name, value]) => [name, figure(value, 7)])));
}

const trialLink = (number) => make("a", { href: address(study.name, view?.name || "overview", number) }, `trial ${number}`);
const pairs = (rows) => make("dl", { class: "pairs" }, rows.map(([name, value]) => [make("dt", {}, name), make("dd", {}, words(value))]));
const words = (value) => (value instanceof Node || typeof value === "string" ? value : typeof value === "number" ? figure(value, 7) : JSON.stringify(value));

async function fillShares(host) {
  const told = await ask("importance", { study: study.name, id: study.id }).catch(() => null);
  if (!told || !told.importance) return;
  const rows = told.importance.slice(0, 20).map(([name, share]) => {
    const fill = make("div", { class: "fill" });
    fill.style.width = `${100 * share}%`;
    return make("div", { class: "share" }, make("span", { class: "name", title: name }, name), make("div", { class: "track" }, fill), make("span", { class: "figure number" }, `${Math.round(100 * share)} %`));
  });
  host.replaceChildren(...(rows.length ? rows : [make("p", { class: "quiet small" }, told.why || "Nothing to compare yet.")]));
}

function trials() {
  const table = new Table(study, openTrial);
  return { element: table.element, update: () => table.update() };
}

// The parts below draw one objective: which one, where there are several.
function objectiveChoice(change) {
  const select = make("select", { "aria-label": "Objective", onchange: change }, study.directions.map((_, k) => make("option", { value: k }, study.objective(k))));
  return { element: study.directions.length > 1 ? select : null, get: () => Number(select.value) || 0 };
}

function slice() {
  const host = make("div", { class: "small-multiples" });
  const note = make("p", { class: "quiet small" });
  let key = "";
  let drawn = [];
  const choice = objectiveChoice(() => ((key = ""), update()));
  const update = () => {
    const columns = study.columns;
    const now = JSON.stringify(columns);
    if (now !== key) {
      key = now;
      const shown = columns.slice(0, MOST_SLICES);
      drawn = shown.map((column) => pictures.slice(study, column, choice.get(), openTrial));
      host.replaceChildren(...drawn.map((picture, k) => card(shown[k].key, null, picture.element)));
      note.textContent = columns.length > MOST_SLICES ? `The first ${MOST_SLICES} of ${columns.length} parameters. ` : "";
      note.textContent += "One point a complete trial; the later the trial, the brighter.";
    }
    drawn.forEach((picture) => picture.draw());
  };
  return { element: make("div", { class: "stack" }, choice.element, host, note), update };
}

function parallel() {
  const host = make("div");
  const choice = objectiveChoice(() => build());
  let picture;
  const build = () => {
    picture = pictures.parallel(study, () => study.columns.slice(0, MOST_AXES - 1), choice.get());
    host.replaceChildren(picture.element);
    picture.draw();
  };
  const note = make("p", { class: "quiet small" }, `One line a complete trial, the better the brighter; the best in its own colour. At most ${MOST_AXES - 1} parameters and 3000 trials, the best among them.`);
  return { element: card("Parallel coordinates", choice.element, host, note), update: () => (picture ? picture.draw() : build()) };
}

function curves() {
  const { picture, tools } = pictures.curves(study, openTrial);
  const note = make("p", { class: "quiet small" });
  const update = async () => {
    const told = await ask("curves", { study: study.name, id: study.id }).catch(() => null);
    if (!told || !told.curves) return;
    picture.lines = told.curves.map((line) => ({ ...line, points: line.points.map(([step, value]) => [step, numberOf(value)]) }));
    note.textContent = told.of ? `${told.curves.length} of ${told.of} trials that reported: the best and the latest.` : "No trial has reported a value yet: trial.report(value, step).";
    picture.draw();
  };
  return { element: card("Reported values", tools, picture.element, note), update };
}

function timeline() {
  const picture = pictures.timeline(study, openTrial);
  const legend = make("p", {}, STATES.map((_, state) => stateChip(state)));
  return { element: card("Timeline", null, picture.element, legend), update: () => picture.draw(), always: true };
}

// --- one trial ---------------------------------------------------------------------------------

let inDrawer = "";

async function showTrial(number) {
  if (number === undefined) {
    drawer.hidden = true;
    inDrawer = "";
    return;
  }
  const name = study.name;
  const trial = await ask("trial", { study: name, number }).catch((error) => ({ error: error.message, number, missing: true }));
  const [nowName, , nowNumber] = parts();
  if (nowName !== name || nowNumber !== number) return;
  const text = JSON.stringify(trial);
  if (inDrawer === text && !drawer.hidden) return;
  const focus = drawer.hidden || drawer.contains(document.activeElement);
  inDrawer = text;
  const close = make("button", { id: "close", onclick: closeDrawer, "aria-label": "Close" }, "Close");
  const head = make("header", {}, make("h2", {}, `Trial ${trial.number}`), trial.missing ? null : make("span", { class: `chip state-${trial.state}` }, trial.state.toLowerCase()), close);
  const drawn = [];
  const body = trial.missing ? [make("p", { class: "quiet" }, trial.error)] : sections(trial, drawn);
  drawer.replaceChildren(head, ...body);
  drawer.hidden = false;
  if (focus) close.focus({ preventScroll: true });
  drawn.forEach((picture) => picture.draw());
}

function closeDrawer() {
  const number = parts()[2];
  location.hash = address(study.name, view?.name || "overview");
  main.querySelector(`.row[data-number="${CSS.escape(number)}"]`)?.focus({ preventScroll: true }); // where it came from
}

document.addEventListener("keydown", (event) => event.key === "Escape" && !drawer.hidden && study && closeDrawer());

function sections(trial, drawn) {
  const section = (title, ...body) => make("section", {}, make("h2", {}, title), ...body);
  const found = [];
  const values = (trial.values || []).map((value, k) => [study.objective(k), String(numberOf(value))]);
  const times = [["began", moment(trial.started)], ["ended", moment(trial.ended)], ["took", seconds(duration(trial))]].filter(([, text]) => text);
  if (trial.attempt > 1) times.push(["attempts", trial.attempt]);
  found.push(make("section", {}, pairs([...values, ...times])));
  if (trial.error) found.push(section("Error", make("pre", {}, trial.error)));
  const params = Object.entries(trial.params);
  if (params.length) found.push(section("Parameters", pairs(params.map(([name, value]) => [name, parameter(value, trial.domains[name])]))));
  if (trial.reports.length) {
    const picture = pictures.curve(trial.reports.map(([step, value]) => [step, numberOf(value)]));
    drawn.push(picture);
    found.push(section("Curve", picture.element));
  }
  const slopes = Object.entries(trial.gradient || {});
  if (slopes.length) found.push(section("Gradient", pairs(slopes.map(([name, slope]) => [name, Array.isArray(slope) ? list(slope.flat(Infinity)) : figure(numberOf(slope), 7)]))));
  if (trial.constraints) found.push(section("Constraints (met where at most 0)", pairs(trial.constraints.map((value, k) => [String(k), figure(numberOf(value), 7)]))));
  const attrs = Object.entries(trial.attrs);
  if (attrs.length) found.push(section("Attributes", pairs(attrs)));
  if (trial.nested.length) found.push(section("Studies inside", trial.nested.map((name) => make("div", {}, make("a", { href: address(name) }, name)))));
  return found;
}

function parameter(value, [kind, ...domain]) {
  if (kind === "array") {
    const entries = value.entries ? list(value.entries) : `from ${figure(value.least)} to ${figure(value.most)}, mean ${figure(value.mean)}`;
    return `${value.shape.join(" × ")}: ${entries}`;
  }
  if (kind === "categorical") return String(value);
  const [low, high, log, step] = domain;
  const range = `${figure(low)} … ${figure(high)}${log ? ", log" : ""}${step && step !== 1 ? `, step ${figure(step)}` : ""}`;
  return make("span", {}, figure(value, 7), make("span", { class: "quiet small" }, `   ${range}`));
}

const list = (entries) => entries.slice(0, 24).map((entry) => figure(numberOf(entry), 4)).join("  ") + (entries.length > 24 ? `  … (${entries.length})` : "");

ask("studies").then((told) => (document.getElementById("where").textContent = told.storage)).catch(() => {});
window.nestor = { get study() { return study; } }; // for those who look under the hood
go();
