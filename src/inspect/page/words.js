'use strict';
// Numbers, names and elements, as people read them.

function count(n) {
  const units = ['', 'K', 'M', 'G', 'T'];
  let u = 0;
  while (n >= 1000 && u < units.length - 1) {
    n /= 1000;
    u++;
  }
  return (u === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + (units[u] && ' ' + units[u]);
}

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let u = 0;
  while (n >= 1024 && u < units.length - 1) {
    n /= 1024;
    u++;
  }
  return (u === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + ' ' + units[u];
}

function time(seconds) {
  if (!seconds) return '0';
  if (seconds >= 1) return seconds.toFixed(2) + ' s';
  if (seconds >= 1e-3) return (seconds * 1e3).toFixed(2) + ' ms';
  return seconds >= 1e-6 ? (seconds * 1e6).toFixed(1) + ' µs' : (seconds * 1e9).toFixed(0) + ' ns';
}

function percent(part) {
  return (100 * part).toFixed(part < 0.0995 ? 1 : 0) + ' %';
}

function many(n, what) {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

/** What the roles of nodes and kernels are called, here as at the command line. */
const ROLE_WORDS = { forward: 'forward', gradient: 'backward', optimiser: 'update' };

function roleName(role) {
  switch (role.kind) {
    case 'gradient':
      return 'backward of ' + role.of;
    case 'optimiser':
      return 'update of ' + role.of;
    default:
      return role.kind;
  }
}

// Layers whose short names people know.
const SHORT = { conv: 'Conv', conv_transpose: 'ConvT', batch_norm: 'BatchNorm', leaky_relu: 'LeakyReLU', relu: 'ReLU' };

/** `4-conv_transpose` is `ConvT 4`. */
function layerWords(part) {
  const found = /^(\d+)-(\w+)$/.exec(part);
  if (!found) return part;
  const camel = () =>
    found[2]
      .split('_')
      .map(word => word[0].toUpperCase() + word.slice(1))
      .join('');
  return `${SHORT[found[2]] ?? camel()} ${found[1]}`;
}

/**
 * A scope such as `fake_d/generator/4-conv_transpose` in words: `ConvT 4 of generator, for fake_d`. Nothing where it is
 * of no layer.
 */
function scopeWords(scope) {
  const parts = scope.split('/'),
    at = parts.findIndex(part => /^\d+-\w+$/.test(part));
  if (at < 0) return null;
  const of = at > 0 ? ' of ' + parts[at - 1] : '',
    call = at > 1 ? ', for ' + parts.slice(0, at - 1).join('/') : '';
  return layerWords(parts[at]) + of + call;
}

/** The layer of a value by its name, in words; a gradient is called by what it is of, with a `d_` before it. */
function valueWords(name, isGradient) {
  const words = scopeWords(isGradient ? name.replace(/^d_/, '') : name);
  return words && words + (isGradient ? ', backward' : '');
}

/** What a buffer holds, in words: by its name where that says it, else by the kernel that writes it or works in it. */
function bufferWords(entry, buffer) {
  if (buffer.words) return buffer.words;
  const node = entry.last.node(buffer.name),
    last = buffer.name.split('/').pop(),
    layer = valueWords(buffer.name, node?.role.kind === 'gradient');
  if (layer) return (buffer.words = `${layer}: ${last}`);
  // Passes call nodes by their operations.
  const isNamed = node ? node.op !== buffer.name.replace(/\.\d+$/, '') : buffer.role !== 'workspace';
  const kernel = entry.kernels[buffer.writers[0] ?? buffer.live[0]];
  if (isNamed || !kernel) return (buffer.words = buffer.name);
  const of = kernel.words.replace(/: [^:]*$/, ''),
    what = buffer.role === 'workspace' ? buffer.name.split(': ').pop() : last;
  return (buffer.words = `${of}: ${what}`);
}

/** What a kernel is for, in words, from the node that it is built around. */
function kernelWords(kernel, core, entry) {
  if (!core) return kernel.name;
  const name = entry.names[core.name],
    layer = scopeWords(core.scope) ?? scopeWords(kernel.role.kind === 'gradient' ? name.replace(/^d_/, '') : name);
  const last = name.split('/').pop();
  if (kernel.role.kind === 'optimiser') {
    const of = `update of ${kernel.role.of}`;
    if (kernel.kind !== 'multi-tensor' && core.scope.endsWith('/non_finite')) return `${of}: whether all is finite`;
    return kernel.kind === 'multi-tensor'
      ? `${of}, all parameters at once`
      : layer
        ? `${of}: ${layer}`
        : `${of}: ${last}`;
  }
  const back = kernel.role.kind === 'gradient' ? ', backward' : '';
  if (layer) return /-/.test(last) ? layer + back : `${layer}${back}: ${last}`;
  return core.scope ? `${core.scope}${back}: ${last}` : `${back ? roleName(kernel.role) + ': ' : ''}${last}`;
}

function clip(text, most = MAX_LABEL) {
  if (text.length <= most) return text;
  const head = Math.ceil(most * 0.55);
  return text.slice(0, head) + '…' + text.slice(text.length - (most - head - 1));
}

const MOST_TAIL = 27; // characters at a name's end that are kept where it is cut

/** A name, with what is told before it. Where it does not fit it is cut in the middle: names differ at their ends. */
function endsShown(text, title, ...before) {
  const space = text.indexOf(' ', Math.max(text.length - MOST_TAIL, text.length * 0.4)),
    parts = text.length > MOST_TAIL && space > 0 ? [text.slice(0, space), text.slice(space)] : [text];
  return html('div', { class: 'ends', title }, ...before, ...parts.map(part => html('span', {}, part)));
}

/** The width of a text in the page's font, summed over its characters: thousands are measured at a time. */
const textWidth = (() => {
  const context = document.createElement('canvas').getContext('2d'),
    widths = new Map();
  context.font = '12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  return text => {
    let sum = 0;
    for (const c of text) {
      let w = widths.get(c);
      if (w === undefined) widths.set(c, (w = context.measureText(c).width));
      sum += w;
    }
    return sum;
  };
})();

const SMALL_TEXT = 10.5 / 12; // of the size that `textWidth` is for
const LEAST_LETTERS = 9; // of a name; with fewer it says nothing

/** A name in small letters as it fits into so many pixels: without the call, then without the network; else cut. */
function fitted(text, room) {
  const fits = shown => textWidth(shown) * SMALL_TEXT <= room;
  if (room < 24) return '';
  let shown = text;
  for (const part of [/, for [^,:]+/, / of [^,:]+/, /[,:] .*/]) {
    if (fits(shown)) return shown;
    shown = shown.replace(part, '');
  }
  if (fits(shown)) return shown;
  let most = Math.min(shown.length - 1, Math.floor((shown.length * room) / (textWidth(shown) * SMALL_TEXT)) + 1);
  while (most >= LEAST_LETTERS && !fits(clip(shown, most))) most--;
  return most >= LEAST_LETTERS ? clip(shown, most) : '';
}

// Elements

const $ = id => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...children);
  return element;
}

function html(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'onclick') element.addEventListener('click', value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function push(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
