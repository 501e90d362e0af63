'use strict';
// The data of the page with what is looked up in it: nodes by name, users, changes from stage to stage.

const DATA = JSON.parse(document.getElementById('data').textContent);

// The last stage is not a graph's.
const KERNELS = 'kernels';

class Entry {
  constructor(data) {
    Object.assign(this, data);
    this.graphStages = data.stages.map((stage, index) => new Stage(this, stage, index));
    this.stages = [
      ...this.graphStages,
      { name: KERNELS, about: 'Nodes fused into kernels, numbered in the order in which they run.', changes: null },
    ];
    this.last = this.graphStages[this.graphStages.length - 1];
    this.kernelsOf = new Map(); // node name -> kernel positions
    this.kernels.forEach((kernel, k) => {
      kernel.at = k;
      kernel.intensity = kernel.bytes ? kernel.flops / kernel.bytes : 0;
      kernel.nodes.forEach(n => push(this.kernelsOf, this.names[n], k));
    });
    this.bufferOf = new Map(); // node name -> buffer index
    this.buffers.forEach((buffer, b) => {
      buffer.at = b;
      buffer.readers = []; buffer.writers = []; buffer.over = []; buffer.under = [];
      buffer.nodes.forEach(n => this.bufferOf.set(this.names[n], b));
    });
    // Which kernel's value a kernel reads: the last that wrote the buffer before it.
    const writer = new Map();
    this.flows = [];
    this.kernels.forEach((kernel, k) => {
      kernel.reads.forEach(b => {
        this.buffers[b].readers.push(k);
        if (writer.has(b) && writer.get(b) !== k) this.flows.push({ from: writer.get(b), to: k, buffer: b });
      });
      kernel.writes.forEach(b => { this.buffers[b].writers.push(k); writer.set(b, k); });
    });
    this.kernels.forEach((kernel, k) => kernel.in_place.forEach(([result, old]) => {
      this.buffers[result].over.push({ kernel: k, buffer: old });
      this.buffers[old].under.push({ kernel: k, buffer: result });
    }));
    if (data.profile) data.profile.kernels.forEach(time => { this.kernels[time.kernel].time = time; });
  }

  /** The newest stage, at or before `from`, that has the node; else the first after it. */
  stageWith(name, from) {
    const start = Math.min(from, this.graphStages.length - 1);
    for (let s = start; s >= 0; s--) if (this.graphStages[s].node(name)) return s;
    for (let s = start + 1; s < this.graphStages.length; s++) if (this.graphStages[s].node(name)) return s;
    return -1;
  }
}

class Stage {
  constructor(entry, data, index) {
    Object.assign(this, data);
    this.entry = entry;
    this.index = index;
    this.nodes = data.nodes.map(i => entry.nodes[i]);
    this.ids = data.nodes;
  }

  get byName() {
    return this.cachedByName ??= new Map(this.nodes.map(node => [node.name, node]));
  }

  /** The node of that name (a string). */
  node(name) {
    const index = this.entry.nameIndex ??= new Map(this.entry.names.map((text, i) => [text, i]));
    return this.byName.get(index.get(name));
  }

  get users() {
    if (!this.cachedUsers) {
      this.cachedUsers = new Map();
      for (const node of this.nodes) for (const o of new Set(node.operands)) push(this.cachedUsers, o, node);
    }
    return this.cachedUsers;
  }

  /** What the pass before this stage did: names of nodes that are new, are no more, or are not as they were. */
  get changes() {
    if (this.cachedChanges !== undefined) return this.cachedChanges;
    const before = this.entry.graphStages[this.index - 1];
    if (!before) return this.cachedChanges = null;
    const changes = { added: new Set(), changed: new Set(), removed: new Map() };
    for (const node of this.nodes) {
      const old = before.byName.get(node.name);
      if (!old) changes.added.add(node.name);
      else if (old !== node) changes.changed.add(node.name);
    }
    for (const node of before.nodes) if (!this.byName.has(node.name)) changes.removed.set(node.name, node);
    return this.cachedChanges = changes;
  }
}

function push(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value); else map.set(key, [value]);
}

// Human-readable numbers

function count(n) {
  const units = ['', 'K', 'M', 'G', 'T'];
  let u = 0;
  while (n >= 1000 && u < units.length - 1) { n /= 1000; u++; }
  return (u === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + (units[u] && ' ' + units[u]);
}

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let u = 0;
  while (n >= 1024 && u < units.length - 1) { n /= 1024; u++; }
  return (u === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + ' ' + units[u];
}

function time(seconds) {
  if (seconds >= 1) return seconds.toFixed(2) + ' s';
  return seconds >= 1e-3 ? (seconds * 1e3).toFixed(2) + ' ms' : (seconds * 1e6).toFixed(1) + ' µs';
}

function roleName(role) {
  switch (role.kind) {
    case 'gradient': return 'gradient of ' + role.of;
    case 'optimiser': return 'update of ' + role.of;
    default: return role.kind;
  }
}

// Elements

const SVG = 'http://www.w3.org/2000/svg';

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function html(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'onclick') element.addEventListener('click', value); else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
