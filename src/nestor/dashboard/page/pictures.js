// The pictures of a study, each from the trials that the page holds.

import { Picture, colour, extent, ramp } from "./charts.js";
import { STATES, figure, make, moment, seconds } from "./data.js";

const [RUNNING, COMPLETE, PRUNED] = [1, 3, 4];
const MOST_LINES = 3000;

const better = (study, k) => (study.directions[k] === "minimize" ? (a, b) => a < b : (a, b) => a > b);

export function told(study, trial) {
  const lines = [`trial ${trial.number} · ${STATES[trial.state].toLowerCase()}`];
  if (trial.values) lines.push(trial.values.map((value, k) => `${study.objective(k)} ${figure(value, 7)}`).join("\n"));
  const params = Object.entries(trial.params);
  lines.push(...params.slice(0, 12).map(([name, value]) => `${name} = ${figure(value)}`));
  if (params.length > 12) lines.push(`and ${params.length - 12} more`);
  return lines.join("\n");
}

// A box that draws a log scale where all is positive; off until it is ticked.
export function logBox(picture) {
  const box = make("input", { type: "checkbox", onchange: () => picture.draw() });
  return { box, element: make("label", {}, box, "log scale") };
}

export function history(study, k, open) {
  let log = null;
  const picture = new Picture(() => {
    const points = study.known.filter((trial) => trial.values && (trial.state === COMPLETE || trial.state === PRUNED));
    const complete = points.filter((trial) => trial.state === COMPLETE);
    const feasible = complete.filter((trial) => !(trial.missed > 0));
    const isBetter = better(study, k);
    const stairs = [];
    let best = null;
    for (const trial of feasible) {
      if (best === null || isBetter(trial.values[k], best)) best = trial.values[k];
      stairs.push({ x: trial.number, y: best });
    }
    if (stairs.length) stairs.push({ x: study.trials.length - 1, y: best });
    const positive = log.box.checked;
    const [low, high] = extent([(complete.length ? complete : points).map((trial) => trial.values[k])], positive);
    const [first, last] = [0, Math.max(1, study.trials.length - 1)];
    const mark = (trial) => ({
      x: trial.number, y: trial.values[k], number: trial.number, text: () => told(study, trial),
      colour: trial.state === PRUNED ? colour("pruned") : trial.missed > 0 ? colour("waiting") : colour("complete"),
    });
    const name = study.objective(k);
    return {
      label: `History of ${name}: ${points.length} trials${best === null ? "" : `, best ${best}`}`,
      x: { title: "trial", low: first, high: last, whole: true },
      y: { title: name, low, high, log: positive },
      layers: [
        { kind: "points", items: points.map(mark), alpha: points.length > 2000 ? 0.35 : 0.65, size: points.length > 2000 ? 2.2 : 3 },
        { kind: "line", items: stairs, colour: colour("best"), stairs: true },
      ],
    };
  }, { height: 320, open });
  log = logBox(picture);
  return { picture, tools: log.element };
}

export function slice(study, column, k, open) {
  const picture = new Picture(() => {
    const trials = study.complete.filter((trial) => trial.params[column.key] !== undefined);
    const [low, high] = extent([trials.map((trial) => trial.values[k])]);
    const last = Math.max(1, study.trials.length - 1);
    const items = trials.map((trial) => ({
      x: trial.params[column.key], y: trial.values[k], number: trial.number, text: () => told(study, trial),
      colour: ramp(trial.number / last), shift: column.choices ? 16 * (((trial.number * 0.618) % 1) - 0.5) : 0,
    }));
    const best = trials.find((trial) => trial.number === study.best);
    const ring = best ? [{ x: best.params[column.key], y: best.values[k], colour: colour("best") }] : [];
    return {
      label: `${column.key} against ${study.objective(k)}: ${items.length} trials`,
      x: column.choices ? { title: column.key, choices: column.choices } : { title: column.key, ...rangeOf(column, trials) },
      y: { title: study.objective(k), low, high },
      layers: [{ kind: "points", items, alpha: 0.75 }, { kind: "points", items: ring, size: 6, ring: true, alpha: 1 }],
    };
  }, { height: 240, open });
  return picture;
}

// The range that a parameter was suggested from, wider where an earlier one was.
function rangeOf(column, trials) {
  const [low, high] = extent([trials.map((trial) => trial.params[column.key])], column.log);
  return { low: Math.min(low, column.low), high: Math.max(high, column.high), log: column.log, whole: column.kind === "int" && !column.log };
}

export function parallel(study, chosen, k) {
  const name = study.objective(k);
  return new Picture(() => {
    const trials = someOf(study.complete, better(study, k), k);
    const axes = [...chosen(), { key: name, value: true }];
    return {
      label: `Parallel coordinates: ${trials.length} trials over ${axes.length} axes`,
      paint: (pen, box, near) => paintParallel(pen, box, near, study, trials, axes, k),
    };
  }, { height: 420 });
}

// All trials, or the best thousand and some thousands of the others, evenly spread.
function someOf(trials, isBetter, k) {
  if (trials.length <= MOST_LINES) return trials;
  const ranked = [...trials].sort((a, b) => (isBetter(a.values[k], b.values[k]) ? -1 : 1));
  const rest = ranked.slice(1000);
  const every = rest.length / (MOST_LINES - 1000);
  return [...ranked.slice(0, 1000), ...Array.from({ length: MOST_LINES - 1000 }, (_, i) => rest[Math.floor(i * every)])];
}

function paintParallel(pen, box, near, study, trials, axes, k) {
  const [top, bottom, absent] = [34, box.height - 46, box.height - 22];
  const gap = (box.width - 120) / Math.max(1, axes.length - 1);
  const values = trials.map((trial) => trial.values[k]);
  const scales = axes.map((axis) => (axis.value ? linear(...extent([values])) : placeOf(axis, trials)));
  // Coloured by rank, so that one value far out does not take all colours; the best are drawn last.
  const isBetter = better(study, k);
  const order = trials.map((_, i) => i).sort((i, j) => (values[i] === values[j] ? 0 : isBetter(values[i], values[j]) ? 1 : -1));
  order.forEach((i, rank) => {
    const share = order.length > 1 ? rank / (order.length - 1) : 1;
    pen.strokeStyle = trials[i].number === study.best ? colour("best") : ramp(share);
    pen.lineWidth = trials[i].number === study.best ? 2.5 : 1;
    pen.globalAlpha = trials[i].number === study.best ? 1 : Math.min(0.75, Math.max(0.08, 60 / order.length) * (0.35 + share));
    pen.beginPath();
    axes.forEach((axis, a) => {
      const value = axis.value ? values[i] : trials[i].params[axis.key];
      const y = value === undefined ? absent : bottom - scales[a](value) * (bottom - top);
      if (a === 0) pen.moveTo(60, y);
      else pen.lineTo(60 + a * gap, y);
    });
    pen.stroke();
    near.push({ x: box.width - 60, y: bottom - scales.at(-1)(values[i]) * (bottom - top), number: trials[i].number, text: () => told(study, trials[i]) });
  });
  pen.globalAlpha = 1;
  axes.forEach((axis, a) => labelAxis(pen, 60 + a * gap, top, bottom, axis, axis.value ? extent([values]) : [axis.low, axis.high], gap));
  if (trials.some((trial) => axes.some((axis) => !axis.value && trial.params[axis.key] === undefined))) {
    pen.textAlign = "left";
    pen.fillText("absent", 4, absent);
  }
}

function labelAxis(pen, x, top, bottom, axis, [low, high], gap) {
  pen.strokeStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, top);
  pen.lineTo(x, bottom);
  pen.stroke();
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = colour("ink");
  const most = Math.max(4, Math.floor(gap / 7.5));
  pen.fillText(axis.key.length > most ? `${axis.key.slice(0, most - 1)}…` : axis.key, x, 10);
  pen.fillStyle = colour("quiet");
  if (axis.choices) {
    pen.textAlign = "left";
    const every = Math.ceil(axis.choices.length / 12);
    axis.choices.forEach((choice, c) => {
      if (c % every) return;
      backed(pen, String(choice).slice(0, 12), x + 6, bottom - ((c + 0.5) / axis.choices.length) * (bottom - top));
    });
    return;
  }
  pen.fillText(figure(high, 4), x, top - 9);
  pen.fillText(figure(low, 4) + (axis.log ? " (log)" : ""), x, bottom + 10);
}

// Text that lines run under: on a ground of its own.
function backed(pen, text, x, y) {
  const width = pen.measureText(text).width;
  pen.fillStyle = colour("card");
  pen.globalAlpha = 0.8;
  pen.fillRect(x - 2, y - 8, width + 4, 16);
  pen.globalAlpha = 1;
  pen.fillStyle = colour("ink");
  pen.fillText(text, x, y);
}

const linear = (low, high) => (value) => (high > low ? (Math.min(Math.max(value, low), high) - low) / (high - low) : 0.5);

function placeOf(axis, trials) {
  if (axis.choices) return (value) => (axis.choices.indexOf(value) + 0.5) / axis.choices.length;
  const { low, high, log } = rangeOf(axis, trials);
  Object.assign(axis, { low, high });
  return log ? (value) => linear(Math.log(low), Math.log(high))(Math.log(value)) : linear(low, high);
}

export function curves(study, open) {
  const picture = new Picture(() => {
    const lines = picture.lines || [];
    const every = lines.flatMap(({ points }) => points.map(([, value]) => value));
    const positive = log.box.checked;
    const [low, high] = extent([every], positive);
    const [first, last] = extent([lines.flatMap(({ points }) => points.map(([step]) => step))]);
    const layers = lines.map(({ number, state, points }) => {
      const best = number === study.best;
      return {
        kind: "line", number, width: best ? 2.5 : 1.2, alpha: best ? 1 : 0.55,
        colour: best ? colour("best") : colour(STATES[state].toLowerCase()),
        items: points.map(([x, y]) => ({ x, y })), text: (item) => `trial ${number} · ${STATES[state].toLowerCase()}\nstep ${item.x}: ${figure(item.y, 7)}`,
      };
    });
    layers.sort((a, b) => a.width - b.width);
    return {
      label: `Reported values of ${lines.length} trials`,
      x: { title: "step", low: first, high: Math.max(last, first + 1), whole: true }, y: { title: "reported value", low, high, log: positive }, layers,
    };
  }, { height: 420, open });
  const log = logBox(picture);
  return { picture, tools: log.element };
}

export function curve(points) {
  return new Picture(() => {
    const [low, high] = extent([points.map(([, value]) => value)]);
    const [first, last] = extent([points.map(([step]) => step)]);
    const items = points.map(([x, y]) => ({ x, y, colour: colour("accent"), text: `step ${x}: ${figure(y, 7)}` }));
    return {
      label: `Reported values: ${points.length} steps`,
      x: { title: "step", low: first, high: Math.max(last, first + 1), whole: true }, y: { low, high },
      layers: [{ kind: "line", items, colour: colour("accent") }, ...(items.length <= 60 ? [{ kind: "points", items, alpha: 1, size: 2.5 }] : [{ kind: "points", items, alpha: 0, size: 1 }])],
    };
  }, { height: 180 });
}

export function timeline(study, open) {
  return new Picture(() => {
    const trials = study.known.filter((trial) => trial.started !== null);
    const now = Date.now() / 1000;
    const start = Math.min(...extent([trials.map((trial) => trial.started)]).slice(0, 1));
    const endOf = (trial) => trial.ended ?? (trial.state === RUNNING ? now : trial.started);
    const [, end] = extent([trials.map(endOf)]);
    const items = trials.map((trial) => ({
      from: trial.started - start, to: endOf(trial) - start, y: trial.number, number: trial.number, colour: colour(STATES[trial.state].toLowerCase()),
      text: () => `trial ${trial.number} · ${STATES[trial.state].toLowerCase()}\nbegan ${moment(trial.started)}\ntook ${seconds(endOf(trial) - trial.started)}`,
    }));
    return {
      label: `Timeline: ${items.length} trials in ${seconds(Math.max(0, end - start))}`,
      x: { title: "since the first trial began", low: 0, high: Math.max(end - start, 1e-3), format: seconds, tight: true },
      y: { title: "trial", low: 0, high: Math.max(1, study.trials.length - 1), whole: true },
      layers: [{ kind: "spans", items }],
    };
  }, { height: 460, open });
}

export function pareto(study, axesOf, open) {
  return new Picture(() => {
    const [i, j] = axesOf();
    const trials = study.complete;
    const front = trials.filter((trial) => study.front.has(trial.number)).sort((a, b) => a.values[i] - b.values[i]);
    const [left, right] = extent([trials.map((trial) => trial.values[i])]);
    const [low, high] = extent([trials.map((trial) => trial.values[j])]);
    const mark = (trial) => ({
      x: trial.values[i], y: trial.values[j], number: trial.number, text: () => told(study, trial),
      colour: study.front.has(trial.number) ? colour("best") : trial.missed > 0 ? colour("waiting") : colour("complete"),
    });
    const line = study.directions.length === 2 ? [{ kind: "line", items: front.map(mark), colour: colour("best"), width: 1.2, alpha: 0.6 }] : [];
    return {
      label: `Pareto front: ${front.length} of ${trials.length} trials`,
      x: { title: `${study.objective(i)} (${study.directions[i]})`, low: left, high: right },
      y: { title: `${study.objective(j)} (${study.directions[j]})`, low, high },
      layers: [{ kind: "points", items: trials.filter((t) => !study.front.has(t.number)).map(mark), alpha: 0.5 }, ...line, { kind: "points", items: front.map(mark), alpha: 1, size: 4 }],
    };
  }, { height: 380, open });
}

