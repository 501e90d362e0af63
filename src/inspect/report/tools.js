'use strict';
// What all views use: elements, numbers as text, the runs with their colours and axes.

const DATA = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'run') element.style.setProperty('--run', value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}

const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

const thousands = n => String(n).replace(/\B(?=(\d{3})+$)/g, ',');

// Four digits that count, as short as can be.
function figure(value) {
  if (value === null || value === undefined) return 'not finite';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, 'e').replace('e+', 'e');
  if (size >= 1000) return thousands(Math.round(value)).replace('-,', '-');
  return String(Number(value.toPrecision(4)));
}

function duration(seconds) {
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const s = Math.round(seconds);
  if (s < 3600) return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')} min`;
  return `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, '0')} h`;
}

const AXES = {
  step: { of: 'steps', text: thousands, whole: true },
  epoch: { of: 'epochs', text: x => String(Number(x.toFixed(3))) },
  time: { of: 'seconds', text: duration },
};

// The last index whose value is not above x, in values that do not fall; -1 where there is none.
function lastBelow(values, x) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= x) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// A run as the views see it.
class Run {
  constructor(data, index) {
    Object.assign(this, data);
    this.index = index;
    this.colour = `var(--run-${index % 8})`;
    this.dashed = index >= 8;
    this.shown = true;
    this.metrics = new Map(data.series.map(series => [series.name, series]));
  }

  // A step on an axis.
  at(step, axis) {
    if (axis === 'step') return step;
    const i = lastBelow(this.steps, step);
    return i < 0 ? 0 : this[AXES[axis].of][i];
  }

  label() { return html('span', { class: 'run', run: this.colour, title: this.folder }, html('i', { class: 'dot' }), html('b', {}, this.name)); }
}

// Round numbers from low to high, about `count` of them.
function ticks(low, high, count, whole) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough * 0.999);
  if (whole) step = Math.max(1, step);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

// As round as a clock: seconds, minutes, hours.
function timeTicks(low, high, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400];
  const step = steps.find(s => s >= (high - low) / count);
  if (!step || high - low < count) return ticks(low, high, count);
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high; x += step) found.push(x);
  return found;
}

function logTicks(low, high) {
  const found = [];
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const digits = to - from <= 2 ? [1, 2, 5] : [1];
  const every = Math.ceil((to - from) / 6);
  for (let power = from; power <= to; power++) {
    if ((power - from) % every) continue;
    for (const digit of digits) {
      const value = Number((digit * 10 ** power).toPrecision(6));
      if (value >= low * 0.9999 && value <= high * 1.0001) found.push(value);
    }
  }
  return found.length > 1 ? found : ticks(low, high, 4).filter(v => v > 0);
}
