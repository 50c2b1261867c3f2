// The table of trials: sorted by a click, filtered by words, and only the rows in sight are elements.

import { STATES, duration, figure, make, moment, seconds } from "./data.js";

const HEIGHT = 32;
const OPERATORS = "<=|>=|!=|=|<|>|~|:";
const AFTER = new RegExp(`^(${OPERATORS})(.*)$`);
const WITHIN = new RegExp(`^(.+?)(${OPERATORS})`);

// What a study's trials have, as columns: how to read a cell, how it is shown, how it goes into a file.
export function columnsOf(study) {
  const fixed = [
    { key: "number", read: (trial) => trial.number, right: true, width: 98 },
    { key: "state", read: (trial) => STATES[trial.state].toLowerCase(), width: 120 },
    ...study.directions.map((_, k) => ({
      key: study.objective(k), read: (trial) => trial.values?.[k] ?? null, right: true, width: 122,
    })),
    { key: "duration", read: duration, show: seconds, right: true, width: 100 },
  ];
  const began = { key: "started", read: (trial) => trial.started, show: moment, width: 172 };
  const taken = new Set([...fixed, began].map(({ key }) => key));
  return [
    ...fixed,
    ...study.columns.map(({ key, kind }) => ({
      key: taken.has(key) ? `param ${key}` : key, read: (trial) => trial.params[key] ?? null, right: kind !== "categorical", width: wide(key),
    })),
    ...[...study.notes].map((key) => ({ key: `attr ${key}`, read: (trial) => trial.attrs[key] ?? null, width: wide(key) + 40 })),
    began,
  ];
}

const wide = (key) => Math.min(220, Math.max(112, 44 + 8 * key.length));
const shownIn = (column, trial) => (column.show || figure)(column.read(trial));

// The filter as a function of a trial; {wrong} says what could not be understood.
export function filterOf(text, columns) {
  const tests = [];
  for (const word of text.match(/(?:"[^"]*"|\S)+/g) || []) {
    const bare = word.replaceAll('"', "");
    const named = namedIn(bare, columns);
    const [, name, operator] = WITHIN.exec(bare) || [];
    if (named) {
      tests.push(comparison(...named));
    } else if (name && operator !== ":") {
      return { wrong: `There is no column “${name}”.` };
    } else {
      const sought = bare.toLowerCase(); // "12:30" is a text like any other
      tests.push((trial) => columns.some((column) => shownIn(column, trial).toLowerCase().includes(sought)));
    }
  }
  return { holds: (trial) => tests.every((test) => test(trial)) };
}

// The column that a word begins with, the operator and what it is compared with; names may hold operators themselves.
function namedIn(word, columns) {
  let best = null;
  for (const column of columns) {
    for (const name of [column.key, column.key.replace(/^attr /, "")]) {
      if (word.slice(0, name.length).toLowerCase() !== name.toLowerCase() || name.length <= (best?.name.length ?? 0)) continue;
      const [, operator, wanted] = AFTER.exec(word.slice(name.length)) || [];
      if (operator) best = { name, found: [column, operator, wanted] };
    }
  }
  return best?.found;
}

function comparison(column, operator, wanted) {
  const limit = Number(wanted);
  const numeric = wanted.trim() !== "" && !Number.isNaN(limit);
  return (trial) => {
    const value = column.read(trial);
    if (value === null) return operator === "!=";
    const text = String(value).toLowerCase();
    const same = numeric && typeof value === "number" ? value === limit : text === wanted.toLowerCase();
    if (operator === "=") return same;
    if (operator === "!=") return !same;
    if (operator === "~" || operator === ":") return text.includes(wanted.toLowerCase());
    if (typeof value !== "number" || !numeric) return false;
    return { "<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit }[operator];
  };
}

// Absent cells come last whichever way it is sorted; what cannot be compared is compared as text.
export function sorted(trials, column, down) {
  const sign = down ? -1 : 1;
  const keyed = trials.map((trial) => [column.read(trial), trial]);
  const missing = (value) => value === null || Number.isNaN(value);
  keyed.sort(([a, one], [b, other]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.number - other.number;
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return sign * order || one.number - other.number;
  });
  return keyed.map(([, trial]) => trial);
}

// Rows as a file of comma-separated values; text that a spreadsheet would take for a formula is quoted for it.
export function asCsv(trials, columns) {
  const cell = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns.map(({ key }) => cell(key)), ...trials.map((trial) => columns.map((c) => cell(c.read(trial))))];
  return lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
}

export class Table {
  constructor(study, open) {
    this.study = study;
    this.open = open;
    this.order = { key: "number", down: true };
    this.input = make("input", {
      type: "search", id: "filter", "aria-label": "Filter trials", placeholder: "Filter:  state=complete  lr<0.01  kind~tree",
      oninput: () => this.update(),
    });
    this.count = make("span", { class: "quiet small number", id: "count" });
    this.wrong = make("span", { class: "wrong small", role: "alert" });
    this.top = make("div", { class: "row top", role: "row" });
    this.body = make("div", { class: "body", role: "rowgroup" });
    this.scroll = make("div", { class: "table", role: "table", tabindex: "-1", onscroll: () => this.fill() }, this.top, this.body);
    const download = make("button", { id: "csv", onclick: () => this.download() }, "Download CSV");
    this.element = make("div", {}, make("div", { class: "filter" }, this.input, this.wrong, this.count, download), this.scroll);
    this.watch = new ResizeObserver(() => this.fill());
    this.watch.observe(this.scroll);
  }

  update() {
    this.columns = columnsOf(this.study);
    const known = this.study.known;
    const { holds, wrong } = filterOf(this.input.value, this.columns);
    this.wrong.textContent = wrong || "";
    if (holds) {
      const column = this.columns.find(({ key }) => key === this.order.key) || this.columns[0];
      this.rows = sorted(known.filter(holds), column, this.order.down);
    }
    this.count.textContent = this.rows.length === known.length ? `${known.length} trials` : `${this.rows.length} of ${known.length} trials`;
    this.scroll.style.height = `${Math.min(Math.max(6, this.rows.length + 1) * HEIGHT + 18, Math.max(320, innerHeight - 300))}px`;
    this.body.style.height = `${this.rows.length * HEIGHT}px`;
    this.scroll.setAttribute("aria-rowcount", this.rows.length + 1); // more than there are elements
    this.head();
    this.fill();
  }

  head() {
    const widths = this.columns.map(({ width }, k) => (k === this.columns.length - 1 ? `minmax(${width}px, 1fr)` : `${width}px`)).join(" ");
    this.widths = widths;
    this.top.style.gridTemplateColumns = widths;
    const heads = this.columns.map(({ key, right }) => {
      const mine = this.order.key === key;
      const text = key + (mine ? (this.order.down ? " ↓" : " ↑") : "");
      const turn = () => {
        this.order = { key, down: mine ? !this.order.down : false };
        this.update();
      };
      const sort = mine ? (this.order.down ? "descending" : "ascending") : "none";
      return make("button", { role: "columnheader", "aria-sort": sort, "data-key": key, title: key, class: right ? "right" : "", onclick: turn }, text);
    });
    const focused = this.top.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.top.replaceChildren(...heads);
    if (focused !== null) heads.find((head) => head.dataset.key === focused)?.focus({ preventScroll: true });
  }

  fill() {
    if (!this.rows) return;
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / HEIGHT) - 8);
    const last = Math.min(this.rows.length, Math.ceil((this.scroll.scrollTop + this.scroll.clientHeight) / HEIGHT) + 8);
    const rows = [];
    for (let k = first; k < last; k++) rows.push(this.row(this.rows[k], k));
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.number : null;
    this.body.replaceChildren(...rows);
    if (focused !== null) rows.find((row) => row.dataset.number === focused)?.focus({ preventScroll: true });
  }

  row(trial, k) {
    const best = trial.number === this.study.best || this.study.front.has(trial.number);
    const cells = this.columns.map((column) => {
      const text = shownIn(column, trial);
      if (column.key === "state") return make("span", { role: "cell", class: `chip state-${STATES[trial.state]}` }, text);
      return make("span", { role: "cell", class: column.right ? "right" : "", title: text.length > 12 ? text : null }, text);
    });
    const row = make("div", {
      class: "row", role: "row", tabindex: "0", "aria-rowindex": k + 2, "data-number": trial.number, "data-best": best,
      onclick: () => this.open(trial.number),
      onkeydown: (event) => event.key === "Enter" && this.open(trial.number),
    }, cells);
    row.style.top = `${k * HEIGHT}px`;
    row.style.gridTemplateColumns = this.widths;
    return row;
  }

  download() {
    const file = new Blob([asCsv(this.rows, this.columns)], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(file), download: `${this.study.name.replace(/[^\w.-]+/g, "_") || "study"}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
}
