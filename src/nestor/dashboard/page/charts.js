// Pictures on a canvas: axes with quiet grids, points, lines and bars, and what the pointer is near.

import { figure, make } from "./data.js";

const MANY = 3000; // points, from which on they are small squares: these are drawn much faster
const tip = () => document.getElementById("tip");
const shown = new Set(); // pictures that are drawn again when the window or the theme changes

const palette = new Map(); // read from the style sheet once a picture
export function colour(name) {
  if (!palette.has(name)) palette.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return palette.get(name);
}

const again = () => shown.forEach((picture) => (picture.canvas.isConnected ? picture.draw() : shown.delete(picture)));
window.addEventListener("resize", () => requestAnimationFrame(again));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

// A dark blue for the first, yellow for the last; readable on light and dark ground.
const RAMP = [[68, 84, 156], [38, 130, 142], [53, 183, 121], [160, 200, 60], [240, 190, 40]];
export function ramp(share) {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const k = Math.min(Math.floor(at), RAMP.length - 2);
  const mix = RAMP[k].map((from, c) => Math.round(from + (RAMP[k + 1][c] - from) * (at - k)));
  return `rgb(${mix.join(" ")})`;
}

export class Picture {
  // spec: () => ({label, x, y, layers, note}); an axis is {title, log, low, high, choices, format}.
  constructor(spec, { height = 300, open = null } = {}) {
    this.spec = spec;
    this.canvas = make("canvas", { role: "img" });
    this.element = make("div", { class: "picture" }, this.canvas);
    this.element.style.height = `${height}px`;
    this.open = open;
    this.near = [];
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => (tip().hidden = true));
    this.canvas.addEventListener("click", (event) => {
      const hit = this.nearest(event);
      if (hit && this.open && hit.number !== undefined) this.open(hit.number);
    });
    shown.add(this);
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width < 10) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    this.near = [];
    palette.clear();
    const spec = this.spec();
    this.canvas.setAttribute("aria-label", spec.label);
    if (spec.paint) {
      spec.paint(pen, box, this.near);
    } else {
      this.paint(pen, box, spec);
    }
    this.canvas.dataset.points = this.near.length;
  }

  paint(pen, box, spec) {
    const y = scaleOf(spec.y);
    const ticksOfY = ticks(y, Math.max(3, box.height / 60));
    const gutter = 14 + Math.max(24, ...ticksOfY.map((tick) => pen.measureText(tick.text).width));
    const frame = { left: gutter + (spec.y.title ? 18 : 0), top: 10, right: box.width - 12, bottom: box.height - (spec.x.title ? 42 : 26) };
    const x = scaleOf(spec.x);
    const across = (value) => frame.left + x.place(value) * (frame.right - frame.left);
    const down = (value) => frame.bottom - y.place(value) * (frame.bottom - frame.top);
    const widest = spec.x.choices ? 60 : 80;
    axes(pen, frame, ticks(x, Math.max(2, (frame.right - frame.left) / widest)), ticksOfY, across, down, spec);
    pen.save();
    pen.beginPath();
    pen.rect(frame.left - 6, frame.top - 6, frame.right - frame.left + 12, frame.bottom - frame.top + 12);
    pen.clip();
    for (const layer of spec.layers) LAYERS[layer.kind](pen, layer, across, down, this.near);
    pen.restore();
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    let best = null;
    let distance = 14 * 14;
    for (const spot of this.near) {
      const dx = spot.width ? Math.max(spot.x - x, 0, x - spot.x - spot.width) : spot.x - x;
      const d = dx * dx + (spot.y - y) ** 2;
      if (d < distance) (best = spot), (distance = d);
    }
    return best;
  }

  point(event) {
    const hit = this.nearest(event);
    tip().hidden = !hit;
    this.canvas.style.cursor = hit && this.open && hit.number !== undefined ? "pointer" : "default";
    if (!hit) return;
    tip().textContent = typeof hit.text === "function" ? hit.text() : hit.text;
    const { offsetWidth, offsetHeight } = tip();
    tip().style.left = `${Math.min(event.clientX + 14, innerWidth - offsetWidth - 8)}px`;
    tip().style.top = `${Math.min(event.clientY + 14, innerHeight - offsetHeight - 8)}px`;
  }
}

// --- scales -----------------------------------------------------------------------------------

function scaleOf(axis) {
  if (axis.choices) {
    const count = axis.choices.length;
    return { ...axis, place: (value) => (axis.choices.findIndex((c) => c === value) + 0.5) / count };
  }
  const pass = axis.log ? Math.log10 : (v) => v;
  let [low, high] = [pass(axis.low), pass(axis.high)];
  if (!(high > low)) (low -= axis.log ? 0.5 : Math.abs(low) * 0.1 || 0.5), (high = 2 * pass(axis.high) - low);
  const margin = axis.tight ? 0 : 0.04 * (high - low);
  (low -= margin), (high += margin);
  return { ...axis, from: low, to: high, place: (value) => (pass(value) - low) / (high - low) };
}

function ticks(scale, wanted) {
  const format = scale.format || ((value) => figure(value, 4));
  if (scale.choices) return scale.choices.map((value) => ({ value, text: short(String(value)) }));
  const step = nice((scale.to - scale.from) / wanted, scale.log || scale.whole);
  const found = [];
  for (let k = Math.ceil(scale.from / step); k * step <= scale.to + 1e-9 * step; k++) {
    const at = Number((k * step).toPrecision(12));
    const value = scale.log ? 10 ** at : at;
    found.push({ value, text: scale.log ? power(at) : format(value) });
  }
  if (scale.log && found.length < 2) return few(scale);
  return found;
}

// A logarithmic axis within a decade or so: plain numbers at its ends and in its middle.
function few(scale) {
  return [0.08, 0.5, 0.92].map((share) => {
    const value = Number((10 ** (scale.from + share * (scale.to - scale.from))).toPrecision(2));
    return { value, text: figure(value, 2) };
  });
}

const power = (at) => (at >= -3 && at <= 4 ? figure(10 ** at) : `1e${at}`);
const short = (text) => (text.length > 14 ? `${text.slice(0, 13)}…` : text);

function nice(rough, whole) {
  const scale = 10 ** Math.floor(Math.log10(rough));
  const found = [1, 2, 2.5, 5, 10].find((step) => step * scale >= rough * 0.999) * scale;
  return whole ? Math.max(1, Math.ceil(found - 1e-9)) : found;
}

// The least and the largest finite number of some lists; on a logarithmic axis of the positive ones.
export function extent(lists, log = false) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const value of list) {
      if (!Number.isFinite(value) || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low > high ? [log ? 1 : 0, log ? 10 : 1] : [low, high];
}

// --- marks ------------------------------------------------------------------------------------

function axes(pen, frame, ticksOfX, ticksOfY, across, down, spec) {
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const { value, text } of ticksOfY) {
    const y = Math.round(down(value)) + 0.5;
    segment(pen, frame.left, y, frame.right, y);
    pen.fillText(text, frame.left - 8, y);
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const { value, text } of ticksOfX) {
    const x = Math.round(across(value)) + 0.5;
    segment(pen, x, frame.bottom, x, frame.bottom + 4);
    pen.fillText(text, x, frame.bottom + 7);
  }
  segment(pen, frame.left, frame.bottom + 0.5, frame.right, frame.bottom + 0.5);
  if (spec.x.title) pen.fillText(spec.x.title, (frame.left + frame.right) / 2, frame.bottom + 25);
  if (spec.y.title) {
    pen.save();
    pen.translate(6, (frame.top + frame.bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(spec.y.title, 0, 0);
    pen.restore();
  }
}

function segment(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

const LAYERS = {
  points(pen, { items, size = 3, alpha = 0.65, ring = false }, across, down, near) {
    for (const item of items) {
      const x = across(item.x);
      const y = down(item.y);
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
      pen.globalAlpha = alpha;
      pen.fillStyle = pen.strokeStyle = item.colour;
      if (items.length > MANY) {
        pen.fillRect(x + (item.shift || 0) - 1, y - 1, 2, 2);
      } else {
        pen.beginPath();
        pen.arc(x + (item.shift || 0), y, size, 0, 2 * Math.PI);
        if (ring) (pen.lineWidth = 1.5), pen.stroke();
        else pen.fill();
      }
      if (item.text) near.push({ x: x + (item.shift || 0), y, number: item.number, text: item.text });
    }
    pen.globalAlpha = 1;
  },
  line(pen, { items, colour: stroke, width = 2, alpha = 1, stairs = false, text, number }, across, down, near) {
    pen.globalAlpha = alpha;
    pen.strokeStyle = stroke;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.beginPath();
    let before = null;
    for (const item of items) {
      const x = across(item.x);
      const y = down(item.y);
      if (!Number.isFinite(x) || !Number.isFinite(y)) {
        before = null;
        continue;
      }
      if (before === null) pen.moveTo(x, y);
      else if (stairs) pen.lineTo(x, before), pen.lineTo(x, y);
      else pen.lineTo(x, y);
      before = y;
      if (text) near.push({ x, y, number, text: () => text(item) });
    }
    pen.stroke();
    pen.globalAlpha = 1;
  },
  spans(pen, { items }, across, down, near) {
    const height = Math.max(1, Math.min(14, 0.7 * Math.abs(down(1) - down(0))));
    for (const item of items) {
      const x = across(item.from);
      const y = down(item.y);
      const width = Math.max(1.5, across(item.to) - x);
      pen.fillStyle = item.colour;
      pen.fillRect(x, y - height / 2, width, height);
      near.push({ x, y, width, number: item.number, text: item.text });
    }
  },
};
