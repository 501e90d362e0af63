'use strict';
// The values of a step: beside what is chosen, and on hover in graph and memory map.

const HOVER = 180; // milliseconds until the value of what is pointed at is shown

/** Bytes of base 64. */
const decoded = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

const figure = value =>
  value === 0
    ? '0'
    : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3
      ? value.toExponential(2)
      : String(Number(value.toPrecision(4)));

/** The colour of a level: 0 is not finite; of both signs blue is below 0 and orange above, else black to white. */
function levelColour(level, isSigned) {
  if (level === 0) return [220, 0, 60];
  if (!isSigned) return Array(3).fill(level);
  const away = (level - 128) / 127,
    end = away < 0 ? [33, 102, 172] : [217, 95, 2];
  return end.map(c => Math.round(255 + (c - 255) * Math.abs(away)));
}

/** A node's picture, its tiles side by side with a pixel between them. */
function valueCanvas(value, isSigned) {
  const { tiles, width, height } = value.picture,
    across = Math.ceil(Math.sqrt((tiles * height) / width)) || 1,
    columns = Math.min(tiles, across),
    rows = Math.ceil(tiles / columns);
  const w = columns * (width + 1) - 1,
    h = rows * (height + 1) - 1,
    scale = Math.max(1, Math.floor(176 / Math.max(w, h)));
  const canvas = html('canvas', {
    width: w,
    height: h,
    class: 'value-picture',
    style: `width:${w * scale}px;height:${h * scale}px`,
  });
  const context = canvas.getContext('2d'),
    levels = decoded(value.picture.pixels);
  const colours = Array.from({ length: 256 }, (_, level) => levelColour(level, isSigned));
  for (let t = 0; t < tiles; t++) {
    const image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) image.data.set([...colours[levels[t * width * height + i]], 255], 4 * i);
    context.putImageData(image, (t % columns) * (width + 1), Math.floor(t / columns) * (height + 1));
  }
  return canvas;
}

function valueHistogram(value) {
  const heights = decoded(value.histogram),
    step = 6;
  const bars = [...heights].map((height, i) =>
    svg('rect', { x: i * step, y: 40 - (height * 38) / 255, width: step - 1, height: (height * 38) / 255 }),
  );
  const w = heights.length * step;
  const chart = svg('svg', { class: 'value-histogram', viewBox: `0 0 ${w} 54`, width: w, height: 54 }, ...bars);
  if (value.low < 0 && value.high > 0) {
    const x = (w * -value.low) / (value.high - value.low);
    chart.append(svg('line', { x1: x, x2: x, y1: 0, y2: 42 }));
  }
  chart.append(
    svg('text', { x: 0, y: 52 }, figure(value.low)),
    svg('text', { x: w, y: 52, 'text-anchor': 'end' }, figure(value.high)),
  );
  return chart;
}

// Of a tensor of images: channels, rows and columns.
const imageSize = ty => /^f\d+\[\d+,([123],\d+,\d+)\]$/.exec(ty)?.[1];

/** Whether a value is of images, of the size of those that the program is fed with, and no gradient. */
function isImages(entry, name) {
  entry.imageSizes ??= new Set(
    DATA.entries.flatMap(({ nodes }) => nodes.filter(node => node.op === 'input').map(node => imageSize(node.ty))),
  );
  const at = entry.stageWith(name, entry.last.index),
    node = at < 0 ? undefined : entry.graphStages[at].node(name),
    size = node && node.role.kind !== 'gradient' ? imageSize(node.ty) : undefined;
  return size !== undefined && entry.imageSizes.has(size);
}

/** All about the value of a node: what is wrong with it first. */
function valueParts(entry, name) {
  const value = entry.valueOf(name),
    most = Math.max(Math.abs(value.low), Math.abs(value.high)),
    hasBothSigns = value.low < 0 && value.high > 0,
    isSigned = hasBothSigns && !isImages(entry, name),
    [black, white] = hasBothSigns ? [-most, most] : [value.low, value.high];
  const lost = [
    value.nan && `${value.nan.toLocaleString('en')} NaN`,
    value.infinite && `${value.infinite.toLocaleString('en')} infinite`,
  ].filter(Boolean);
  const parts = [];
  if (lost.length)
    parts.push(html('p', { class: 'value-lost' }, `${lost.join(', ')} of ${many(value.elements, 'element')}`));
  if (value.picture) parts.push(valueCanvas(value, isSigned));
  if (value.histogram) parts.push(valueHistogram(value));
  const words =
    value.elements === 1 && !lost.length
      ? figure(value.low)
      : `mean ${figure(value.mean)}, deviation ${figure(value.deviation)}` +
        (value.zero ? `, ${percent(value.zero / value.elements)} are 0` : '');
  parts.push(html('p', { class: 'value-figures' }, words));
  if (value.picture)
    parts.push(
      html(
        'p',
        { class: 'hint' },
        html('code', {}, value.picture.about),
        isSigned ? ', blue below 0 and orange above' : `, black ${figure(black)} to white ${figure(white)}`,
      ),
    );
  return parts;
}

/** The node whose value stands for a closed group: its last that something outside uses, or that is a result. */
function resultOf(app, id) {
  const { entry } = app,
    stage = app.stage instanceof Stage ? app.stage : entry.last,
    group = entry.groups.findIndex(found => found.id === id),
    inside = new Set(),
    isUsed = new Set(stage.results.map(([, , n]) => n));
  for (const node of stage.nodes) if (node.groups.includes(group)) inside.add(node.name);
  for (const node of stage.nodes) if (!inside.has(node.name)) for (const o of node.operands) isUsed.add(o);
  const known = n => inside.has(n) && isUsed.has(n) && entry.valueOf(entry.names[n]);
  const last = stage.nodes.map(node => node.name).findLast(known);
  return last === undefined ? null : entry.names[last];
}

/** The parts of the side panel on a node's value; nothing without values. */
function valueSection(entry, name) {
  const value = entry.valueOf(name);
  return value ? [html('h3', {}, 'Value'), html('div', { class: 'value' }, ...valueParts(entry, name))] : [];
}

/** What values there are, and where they are not finite. */
function valuesOverview(app) {
  const { entry } = app;
  if (!entry.values) return [];
  const lost = entry.values.nodes.filter(([, value]) => value.nan + value.infinite);
  return [
    html('h3', {}, 'Values'),
    html('p', { class: 'hint' }, `${entry.values.about}: point at a box or a buffer to see its value.`),
    ...(lost.length
      ? [
          html('p', { class: 'value-lost' }, `${many(lost.length, 'node')} with elements that are NaN or infinite:`),
          app.panel.links(
            lost.map(([n]) => app.panel.nodeLink(n)),
            10,
          ),
        ]
      : [html('p', { class: 'hint' }, 'All of them are finite.')]),
  ];
}

/** The value under the pointer, beside it. */
class ValueHover {
  constructor(app) {
    this.app = app;
    this.tip = html('div', { id: 'value-tip', class: 'value', role: 'tooltip', hidden: '' });
    document.body.append(this.tip);
    $('views').addEventListener('pointermove', event => this.moved(event));
    for (const kind of ['pointerdown', 'pointerleave', 'wheel'])
      $('views').addEventListener(kind, () => this.hide(), { passive: true });
  }

  /** The name of the node whose value is under the pointer. */
  named(target) {
    const { app } = this,
      { entry } = app,
      box = app.tab === 'graph' && target.closest?.('.box'),
      item = app.tab === 'memory' && target.closest?.('[data-buffer]');
    if (item) return entry.valueOfBuffer(Number(item.dataset.buffer));
    if (!box) return null;
    const { tree, here } = app.views.graph,
      found = tree.boxes[box.dataset.box];
    if (found.kernel !== undefined) {
      const { core } = entry.kernels[found.kernel];
      return core === null ? null : entry.names[core];
    }
    if (found.isGroup) return app.views.graph.isOpen(found) ? null : resultOf(app, found.id);
    const node = here.node?.[found.index];
    return node ? entry.names[node.name] : null;
  }

  moved(event) {
    if (event.buttons || !this.app.entry.values) return this.hide();
    const name = this.named(event.target);
    if (name === this.name) return;
    this.hide();
    if (!name || !this.app.entry.valueOf(name)) return;
    this.name = name;
    this.waiting = setTimeout(() => this.show(event.clientX, event.clientY), HOVER);
  }

  show(x, y) {
    this.tip.replaceChildren(html('p', {}, html('b', {}, this.name)), ...valueParts(this.app.entry, this.name));
    this.tip.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = this.tip;
    this.tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - w - 4)) + 'px';
    this.tip.style.top = (y + 14 + h < innerHeight ? y + 14 : Math.max(4, y - h - 14)) + 'px';
  }

  hide() {
    clearTimeout(this.waiting);
    this.name = null;
    this.tip.hidden = true;
  }
}
