// What the server told, kept by number of the trial; and how numbers, times and states read.

export const STATES = ["WAITING", "RUNNING", "PAUSED", "COMPLETE", "PRUNED", "FAILED"];
const COMPLETE = 3;
const WORDS = { inf: Infinity, "-inf": -Infinity, nan: NaN };

export async function ask(what, query = {}) {
  const reply = await fetch(`api/${what}?${new URLSearchParams(query)}`);
  const told = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(told.error || reply.statusText), { status: reply.status });
  return told;
}

export const numberOf = (value) => (typeof value === "string" && value in WORDS ? WORDS[value] : value);

// A study, and what changes in it: `update` asks for what came after the last place of the log.
export class Study {
  constructor(name) {
    this.name = name;
    this.version = 0; // grows with every change that is to be shown, and is never what it was
    this.forget();
  }

  forget() {
    this.id = null;
    this.place = 0;
    this.version++;
    this.directions = [];
    this.attrs = {};
    this.names = null; // of the objectives
    this.trials = [];
    this.domains = new Map();
    this.notes = new Set(); // names of user attributes
    this.best = null;
    this.front = new Set();
    this.whole = false;
  }

  async update(shown) {
    if (this.id === null) {
      const summary = await ask("summary", { study: this.name });
      Object.assign(this, { id: summary.id, directions: summary.directions, attrs: summary.attrs, names: summary.names });
      this.version++;
    }
    for (;;) {
      const told = await ask("changes", { study: this.name, id: this.id, after: this.place });
      if (told.again) return this.forget(), this.update(shown);
      this.place = told.place;
      if (told.attrs) Object.assign(this, { attrs: told.attrs, names: told.names }), this.version++;
      if (!told.trials) break;
      this.take(told);
      if (!told.more) break;
      shown?.();
    }
    if (!this.whole) (this.whole = true), this.version++;
  }

  take(told) {
    for (const [name, domain] of told.params) this.domains.set(name, domain);
    for (const [number, state, values, params, started, ended, missed, attrs, reported] of told.trials) {
      const found = Object.create(null); // a parameter may have any name
      params.forEach((value, k) => value !== null && spread(found, ...told.params[k], value));
      for (const name in attrs || {}) this.notes.add(name);
      const numbers = values ? values.map(numberOf) : null;
      this.trials[number] = {
        number, state, values: numbers, params: found, started, ended,
        missed: numberOf(missed || 0), attrs: Object.assign(Object.create(null), attrs), reported: Boolean(reported),
      };
    }
    this.best = told.best;
    this.front = new Set(told.front);
  }

  // What an objective is called.
  objective(k) {
    return this.names?.[k] ?? (this.directions.length > 1 ? `value ${k}` : "value");
  }

  get known() {
    return this.trials.filter(Boolean);
  }

  get complete() {
    return this.known.filter((trial) => trial.state === COMPLETE && trial.values);
  }

  // Parameters as columns: one for a number or a choice, one an entry of a short array, the mean of a long one.
  get columns() {
    const columns = [];
    for (const [name, domain] of this.domains) {
      if (domain[0] !== "array") {
        columns.push({ key: name, kind: domain[0], low: domain[1], high: domain[2], log: domain[0] !== "categorical" && domain[3], choices: domain[0] === "categorical" ? domain.slice(1).map((c) => (c === null ? "None" : c)) : null });
        continue;
      }
      const [, shape, low, high, log] = domain;
      const size = shape.reduce((a, b) => a * b, 1);
      const keys = size <= 4 ? Array.from({ length: size }, (_, k) => `${name}[${k}]`) : [`mean of ${name}`];
      for (const key of keys) columns.push({ key, kind: "float", low, high, log });
    }
    return columns;
  }

  counts() {
    const counts = new Map();
    for (const trial of this.known) counts.set(trial.state, (counts.get(trial.state) || 0) + 1);
    return counts;
  }
}

function spread(found, name, [kind], value) {
  if (kind === "categorical") found[name] = value; // the choice "inf" is a word
  else if (typeof value !== "object") found[name] = numberOf(value);
  else if (value.entries) value.entries.forEach((entry, k) => (found[`${name}[${k}]`] = entry));
  else found[`mean of ${name}`] = value.mean;
}

export function figure(value, digits = 5) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size < 1e6 && size >= 10 ** digits - 0.5) return String(Math.round(value));
  const text = size >= 1e6 || size < 1e-3 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  return text.replace(/(\.\d*?)0+(e|$)/, "$1$2").replace(/\.(e|$)/, "$1");
}

export function seconds(span) {
  if (span === null || span === undefined) return "";
  if (span === 0) return "0 s";
  if (span < 1e-3) return `${figure(span * 1e6, 3)} µs`;
  if (span < 1) return `${figure(span * 1e3, 3)} ms`;
  if (span < 120) return `${figure(span, 3)} s`;
  if (span < 7200) return `${figure(span / 60, 3)} min`;
  return span < 172800 ? `${figure(span / 3600, 3)} h` : `${figure(span / 86400, 3)} days`;
}

export function moment(since) {
  if (since === null || since === undefined) return "";
  const date = new Date(since * 1000);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const two = (n) => String(n).padStart(2, "0");

export const duration = (trial) =>
  trial.started === null || trial.ended === null ? null : trial.ended - trial.started;

// An element with attributes and children; a child that is no element is text, never markup.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export const stateChip = (state, count) =>
  make("span", { class: `chip state-${STATES[state]}` }, count === undefined ? STATES[state].toLowerCase() : `${count} ${STATES[state].toLowerCase()}`);
