'use strict';
// The drawing of a graph: boxes in boxes, laid out from the inside out, each box's content by dagre.

const CHAR = 6.9;          // width of a character, measured for the page's font at start
const MAX_LABEL = 34;      // characters of a name that are shown
const ORDER = 3;           // the level that lists kernels in their order
const PAD = 12, HEAD = 24; // around and above what is in an open box

/** A box and what is in it. */
class Group {
  constructor(id, label, role) {
    Object.assign(this, { id, label, role, children: [], byId: new Map(), nodes: 0, added: 0, changed: 0, removed: 0 });
  }

  child(id, make) {
    if (!this.byId.has(id)) {
      const child = make();
      this.byId.set(id, child);
      this.children.push(child);
    }
    return this.byId.get(id);
  }
}

class GraphView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
    this.toggled = new Map(); // group id -> open or not, where it was clicked
    this.level = 1;
    this.svg = svg('svg', { class: 'canvas', role: 'application', 'aria-label': 'Graph' });
    this.world = svg('g');
    const head = svg('marker', { id: 'head', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' },
      svg('path', { d: 'M0,0.5 L8,4 L0,7.5 z' }));
    this.svg.append(svg('defs', {}, head), this.world);
    this.legend = html('div', { class: 'legend' });
    const button = (text, label, act) => html('button', { 'aria-label': label, title: label, onclick: act }, text);
    host.append(this.svg, this.legend, html('div', { class: 'zoom' },
      button('+', 'Larger (+)', () => this.zoomBy(1.3)), button('−', 'Smaller (−)', () => this.zoomBy(1 / 1.3)),
      button('⤢', 'The whole (0)', () => this.fit(true))));
    this.view = { x: 0, y: 0, scale: 1 };
    this.listen();
  }

  listen() {
    let from = null, moved = false;
    const pointers = new Map();
    const at = event => {
      const box = this.svg.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    this.svg.addEventListener('wheel', event => {
      event.preventDefault();
      if (event.ctrlKey || !event.shiftKey) this.zoomAt(at(event), Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)));
      else { this.view.x -= event.deltaY; this.place(); }
    }, { passive: false });
    this.svg.addEventListener('pointerdown', event => {
      pointers.set(event.pointerId, at(event));
      from = { ...at(event), view: { ...this.view } };
      moved = false;
    });
    this.svg.addEventListener('pointermove', event => {
      if (!pointers.has(event.pointerId)) return;
      const now = at(event), before = pointers.get(event.pointerId);
      if (pointers.size === 2) { // two fingers zoom
        const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
        const ratio = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
        this.zoomAt({ x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 }, ratio);
        moved = true;
      } else if (from && (moved || Math.hypot(now.x - from.x, now.y - from.y) > 4)) {
        if (!moved) { this.svg.setPointerCapture(event.pointerId); this.svg.classList.add('moving'); }
        moved = true;
        this.view.x = from.view.x + now.x - from.x;
        this.view.y = from.view.y + now.y - from.y;
        this.place();
      }
      pointers.set(event.pointerId, now);
    });
    const up = event => { pointers.delete(event.pointerId); from = null; this.svg.classList.remove('moving'); };
    this.svg.addEventListener('pointerup', up);
    this.svg.addEventListener('pointercancel', up);
    this.svg.addEventListener('click', event => {
      if (moved) return;
      const box = event.target.closest('.box');
      if (!box) this.app.choose(null);
      else this.activate(this.items.get(box.dataset.id));
    });
    this.svg.addEventListener('keydown', event => {
      const box = event.target.closest && event.target.closest('.box');
      if (box && (event.key === 'Enter' || event.key === ' ')) {
        event.preventDefault();
        event.stopPropagation();
        this.activate(this.items.get(box.dataset.id));
        const again = this.elements.get(box.dataset.id);
        if (again) again.focus({ preventScroll: true });
      }
    });
    new ResizeObserver(() => { if (this.unseen) this.fit(); }).observe(this.host);
  }

  activate(item) {
    if (item instanceof Group) {
      if (item.kernel !== undefined) this.app.choose({ kind: 'kernel', id: item.kernel }, { stay: true });
      this.toggle(item);
    } else if (item.kernel !== undefined && item.node === undefined) this.app.choose({ kind: 'kernel', id: item.kernel }, { stay: true });
    else if (item.node) this.app.choose({ kind: 'node', id: this.app.entry.names[item.node.name] }, { stay: true });
  }

  /** Opens or closes a box where it is on the screen. */
  toggle(group) {
    const before = this.positions.get(group.id);
    this.toggled.set(group.id, !this.isOpen(group));
    this.draw();
    const now = this.positions.get(group.id);
    if (before && now) {
      this.view.x += (before.x - before.w / 2 - (now.x - now.w / 2)) * this.view.scale;
      this.view.y += (before.y - before.h / 2 - (now.y - now.h / 2)) * this.view.scale;
      this.place();
    }
  }

  isOpen(group) {
    return this.toggled.get(group.id) ?? group.depth < group.openBelow(this.level);
  }

  setLevel(level) {
    this.level = level;
    this.toggled.clear();
    this.draw();
    this.fit();
  }

  /** Opens every box around what is chosen. */
  open(path) {
    let opened = false;
    for (const id of path) {
      const group = this.items.get(id) ?? this.allGroups.get(id);
      if (group instanceof Group && !this.isOpen(group)) { this.toggled.set(id, true); opened = true; }
    }
    if (opened) this.draw();
  }

  // What is drawn

  /** The groups around a node, from the outside in: ids and labels. */
  pathOf(node) {
    return node.groups.map(group => this.app.entry.groups[group]);
  }

  build() {
    const { entry, stage } = this.app;
    this.root = new Group('', '', null);
    this.root.depth = -1;
    this.items = new Map();
    this.allGroups = new Map();
    this.edges = [];
    if (stage.name === KERNELS) this.buildKernels(entry);
    else this.buildStage(stage);
  }

  group(parent, id, label, role, depth) {
    return parent.child(id, () => {
      const group = new Group(id, label, role);
      group.depth = depth;
      // Layers open at the finest level, calls at the middle one; the optimisers' many small updates only at the finest.
      group.openBelow = level => (role.kind === 'optimiser' && level === 1 ? 0 : level);
      group.parent = parent;
      this.allGroups.set(id, group);
      this.items.set(id, group);
      return group;
    });
  }

  buildStage(stage) {
    const entry = this.app.entry, changes = stage.changes;
    const place = (node, id, mark) => {
      let parent = this.root;
      const path = this.pathOf(node);
      // A call that is one declaration stands for itself where declarations are shown.
      path.forEach((step, depth) => { parent = this.group(parent, step.id, step.label, node.role, depth); });
      const item = parent.child(id, () => ({ id, node, role: node.role, mark, parent }));
      this.items.set(id, item);
      for (let g = parent; g !== this.root; g = g.parent) {
        g.nodes += mark === 'removed' ? 0 : 1;
        if (mark) g[mark]++;
      }
      return item;
    };
    const isPlain = node => node.role.kind !== 'leaf' || (node.op === 'input' && !node.ty.startsWith('u32[2]'));
    const placed = new Map();
    const marked = node => (changes ? (changes.added.has(node.name) ? 'added' : changes.changed.has(node.name) ? 'changed' : null) : null);
    for (const node of stage.nodes) if (isPlain(node)) placed.set(node.name, place(node, 'n:' + node.name, marked(node)));
    const ghosts = changes ? [...changes.removed.values()].filter(isPlain) : [];
    for (const node of ghosts) placed.set(node.name, place(node, 'n:' + node.name, 'removed'));
    const leafOf = (node, user) => user.parent.child('l:' + node.name + '@' + user.parent.id, () => {
      const leaf = { id: 'l:' + node.name + '@' + user.parent.id, node, role: node.role, mark: marked(node), parent: user.parent };
      this.items.set(leaf.id, leaf);
      return leaf;
    });
    const before = stage.index > 0 ? entry.graphStages[stage.index - 1] : null;
    for (const node of [...stage.nodes, ...ghosts]) {
      const user = placed.get(node.name);
      if (!user) continue;
      for (const name of node.operands) {
        const operand = stage.byName.get(name) ?? (before && before.byName.get(name));
        if (!operand) continue;
        const from = placed.get(name) ?? leafOf(operand, user); // a leaf is drawn beside each group of its users
        this.edges.push({ from, to: user });
      }
    }
    for (const [kind, name, node] of stage.results) {
      const from = placed.get(node);
      if (kind !== 'output' || !from) continue;
      const id = 'r:' + name;
      const item = this.root.child(id, () => ({ id, label: name, role: { kind: 'leaf' }, result: kind, parent: this.root, node: from.node }));
      this.items.set(id, item);
      this.edges.push({ from, to: item });
    }
  }

  buildKernels(entry) {
    const last = entry.last, groups = [];
    entry.kernels.forEach((kernel, k) => {
      const [around] = kernel.core === null ? [] : this.pathOf(last.byName.get(kernel.core));
      let parent = this.root;
      if (around) {
        parent = this.group(this.root, around.id, around.label, kernel.role, 0);
        parent.openBelow = level => level;
      }
      const group = this.group(parent, 'k:' + k, kernel.name, kernel.role, 1);
      group.kernel = k;
      group.kind = kernel.kind;
      groups.push(group);
      const inside = new Map();
      for (const name of kernel.nodes) {
        const node = last.byName.get(name);
        const id = `n:${name}@${k}`;
        const item = group.child(id, () => ({ id, node, role: node.role, parent: group }));
        this.items.set(id, item);
        inside.set(name, item);
        group.nodes++;
        if (around) parent.nodes++;
        for (const operand of node.operands) if (inside.has(operand)) this.edges.push({ from: inside.get(operand), to: item });
      }
    });
    const inputs = new Map();
    entry.kernels.forEach((kernel, k) => kernel.reads.forEach(b => {
      const buffer = entry.buffers[b];
      if (buffer.role !== 'input' || buffer.ty.startsWith('u32[2]')) return;
      const id = 'b:' + b;
      const item = this.root.child(id, () => ({ id, label: buffer.name, role: { kind: 'leaf' }, parent: this.root, buffer: b, node: last.node(buffer.name) }));
      this.items.set(id, item);
      this.edges.push({ from: item, to: groups[k] });
    }));
    for (const flow of entry.flows) this.edges.push({ from: groups[flow.from], to: groups[flow.to] });
  }

  // Layout

  label(item) {
    if (item instanceof Group) return item.label;
    if (item.label) return item.label;
    const name = this.app.entry.names[item.node.name];
    return item.node.role.kind === 'leaf' && item.node.op !== 'input' && item.node.op !== 'state' ? item.node.op : name.split('/').pop();
  }

  /** The lines of a closed box. */
  lines(item) {
    if (item instanceof Group) {
      const kernel = item.kernel !== undefined ? this.app.entry.kernels[item.kernel] : null;
      const kernels = item.children.filter(child => child.kernel !== undefined).length;
      if (kernels) return [clip(item.label), `${kernels} kernel${kernels === 1 ? '' : 's'}`];
      return kernel ? [clip(`${kernel.at} ${kernel.name}`), `${kernel.kind} · ${kernel.values} value${kernel.values === 1 ? '' : 's'}`] : [clip(item.label), `${item.nodes} node${item.nodes === 1 ? '' : 's'}`];
    }
    const node = item.node, first = clip(this.label(item));
    if (!node) return [first];
    if (item.result) return [first, 'output'];
    if (node.role.kind === 'leaf') return node.op === 'input' || node.op === 'state' ? [first, `${node.op} ${node.ty}`] : [first];
    return [first.startsWith(node.op) ? first : `${first} = ${node.op}`, node.ty];
  }

  size(item) {
    const lines = this.lines(item);
    const badge = item instanceof Group ? badgeText(item).map(b => b.text).join(' ') : '';
    const width = Math.max(...lines.map(line => textWidth(line)), textWidth(lines[0]) + (badge ? textWidth(badge) + 8 : 0));
    return { w: Math.max(40, Math.ceil(width) + 20), h: lines.length > 1 ? 38 : 24 };
  }

  /** Lays out a group's children; open ones first, so that their sizes are known. */
  layout(group) {
    const sizes = new Map();
    for (const child of group.children) {
      if (child instanceof Group && this.isOpen(child) && child.children.length) {
        const inner = this.layout(child);
        sizes.set(child.id, { w: Math.max(inner.w, textWidth(child.label) + 70), h: inner.h, inner });
      } else sizes.set(child.id, this.size(child));
    }
    const g = new dagre.graphlib.Graph();
    g.setGraph({ rankdir: 'TB', nodesep: 14, ranksep: group === this.root ? 44 : 24, edgesep: 8, marginx: 0, marginy: 0 });
    for (const child of group.children) {
      const size = sizes.get(child.id);
      g.setNode(child.id, { width: size.w, height: size.h });
    }
    for (const [key, edge] of group.inner ?? []) g.setEdge(edge.from, edge.to, { key, weight: edge.weight });
    dagre.layout(g);
    const { width = 0, height = 0 } = g.graph();
    const open = group !== this.root;
    const result = { w: width + (open ? 2 * PAD : 0), h: height + (open ? PAD + HEAD : 0), boxes: [], edges: [] };
    const dx = open ? PAD : 0, dy = open ? HEAD : 0;
    for (const child of group.children) {
      const at = g.node(child.id), size = sizes.get(child.id);
      result.boxes.push({ item: child, x: at.x + dx, y: at.y + dy, w: size.w, h: size.h, inner: size.inner });
    }
    const bands = new Map(); // by the middle of a rank, half the height of what is highest in it
    for (const id of g.nodes()) {
      const { y, height: high } = g.node(id), key = Math.round(y);
      bands.set(key, Math.max(bands.get(key) ?? 0, high / 2));
    }
    for (const e of g.edges()) {
      const points = route(g.edge(e).points, g.node(e.v), g.node(e.w), bands).map(p => ({ x: p.x + dx, y: p.y + dy }));
      result.edges.push({ points, from: e.v, to: e.w });
    }
    return result;
  }

  /** Gives every edge to the innermost group around both its ends, between the boxes there that hold them. */
  assignEdges() {
    const chain = item => {
      const list = [];
      for (let at = item; at && at !== this.root; at = at.parent) list.push(at);
      return list.reverse();
    };
    const clear = group => { group.inner = new Map(); group.children.forEach(c => c instanceof Group && clear(c)); };
    clear(this.root);
    for (const edge of this.edges) {
      const a = chain(edge.from), b = chain(edge.to);
      let depth = 0;
      while (depth < a.length - 1 && depth < b.length - 1 && a[depth] === b[depth]) depth++;
      if (a[depth] === b[depth]) continue;
      const parent = depth ? a[depth - 1] : this.root;
      const key = a[depth].id + '\n' + b[depth].id;
      const found = parent.inner.get(key);
      if (found) found.weight = Math.min(8, found.weight + 1);
      else parent.inner.set(key, { from: a[depth].id, to: b[depth].id, weight: 1 });
    }
  }

  // Drawing

  draw() {
    const { stage, entry } = this.app;
    this.world.replaceChildren();
    this.positions = new Map();
    this.elements = new Map();
    this.edgeElements = [];
    if (stage.name === KERNELS && this.level === ORDER) {
      this.items = new Map();
      this.allGroups = new Map();
      this.drawSchedule(entry);
    } else {
      this.build();
      this.assignEdges();
      const result = this.layout(this.root);
      this.extent = { w: result.w, h: result.h };
      this.paint(result, 0, 0);
    }
    this.drawLegend();
    this.mark();
  }

  paint(result, x, y) {
    const edges = svg('g');
    this.world.append(edges);
    for (const edge of result.edges) {
      const path = svg('path', { class: 'edge', d: curve(edge.points.map(p => ({ x: p.x + x, y: p.y + y }))), 'marker-end': 'url(#head)' });
      edges.append(path);
      this.edgeElements.push({ path, from: edge.from, to: edge.to });
    }
    for (const box of result.boxes) {
      const left = x + box.x - box.w / 2, top = y + box.y - box.h / 2;
      this.positions.set(box.item.id, { x: x + box.x, y: y + box.y, w: box.w, h: box.h });
      this.paintBox(box, left, top);
      if (box.inner) this.paint(box.inner, left + (box.w - box.inner.w) / 2, top);
    }
  }

  paintBox(box, left, top) {
    const item = box.item, isGroup = item instanceof Group, open = Boolean(box.inner);
    const role = item.role ? item.role.kind : 'leaf';
    const element = svg('g', {
      class: `box ${role}${open ? ' open' : ''}${item.result ? ' result' : ''}${item.mark ? ' is-' + item.mark : ''}`,
      transform: `translate(${left},${top})`, tabindex: 0, role: 'button', 'data-id': item.id,
    });
    if (isGroup) element.setAttribute('aria-expanded', open);
    element.setAttribute('aria-label', `${this.label(item)}, ${isGroup ? 'group' : roleName(item.role)}${item.mark ? ', ' + item.mark : ''}`);
    const radius = isGroup ? 8 : role === 'leaf' ? Math.min(12, box.h / 2) : 4;
    element.append(svg('rect', { width: box.w, height: box.h, rx: radius }));
    if (isGroup && !open && item.children.length) element.append(svg('rect', { x: 3, y: 3, width: box.w - 6, height: box.h - 6, rx: 6, style: 'fill:none;stroke-opacity:.35' }));
    const badge = isGroup ? badgeText(item) : [];
    if (open) {
      element.append(svg('text', { x: 10, y: 16 }, '▾ ' + clip(item.label, 60)));
    } else {
      this.lines(item).forEach((line, i, all) => {
        const shift = badge.length && i === 0 ? -(textWidth(badge.map(b => b.text).join(' ')) + 6) / 2 : 0;
        const y = all.length > 1 ? 16 + i * 14 : box.h / 2 + 4;
        element.append(svg('text', { x: box.w / 2 + shift, y, 'text-anchor': 'middle', class: i ? 'small' : '' }, line));
      });
    }
    if (badge.length) {
      const text = svg('text', { x: box.w - 7, y: 15, 'text-anchor': 'end', class: 'badge' });
      badge.forEach((b, i) => text.append(svg('tspan', { class: b.kind }, (i ? ' ' : '') + b.text)));
      element.append(text);
    }
    element.append(svg('title', {}, this.tooltip(item)));
    this.elements.set(item.id, element);
    this.world.append(element);
  }

  tooltip(item) {
    if (item instanceof Group) return `${item.label}: ${item.nodes} nodes — click to open or close`;
    return item.node ? item.node.text : this.label(item);
  }

  /** Kernels in the order in which they run, an arc for every value that one leaves for another. */
  drawSchedule(entry) {
    const row = 30, width = 430, right = width + 14;
    entry.kernels.forEach((kernel, k) => {
      const y = k * row;
      this.positions.set('k:' + k, { x: width / 2, y: y + 12, w: width, h: 24 });
      const element = svg('g', { class: 'box ' + kernel.role.kind, transform: `translate(0,${y})`, tabindex: 0, role: 'button', 'data-id': 'k:' + k, 'aria-label': `kernel ${k}, ${kernel.name}` },
        svg('rect', { width, height: 24, rx: 4 }),
        svg('text', { x: 8, y: 16, class: 'small' }, String(k)),
        svg('text', { x: 34, y: 16 }, clip(kernel.name, 44)),
        svg('text', { x: width - 8, y: 16, 'text-anchor': 'end', class: 'small' }, kernel.time ? time(kernel.time.seconds) : kernel.kind),
        svg('title', {}, `${kernel.name} (${kernel.kind}), ${count(kernel.flops)}FLOP`));
      this.items.set('k:' + k, { id: 'k:' + k, kernel: k, role: kernel.role });
      this.elements.set('k:' + k, element);
      this.world.append(element);
    });
    for (const { from, to } of entry.flows) {
      const a = from * row + 12, b = to * row + 12, reach = right + 10 + 6 * Math.sqrt(to - from) * 4;
      const path = svg('path', { class: 'edge', d: `M${width},${a} C${reach},${a} ${reach},${b} ${width + 2},${b}`, 'marker-end': 'url(#head)', 'stroke-opacity': .55 });
      this.world.prepend(path);
      this.edgeElements.push({ path, from: 'k:' + from, to: 'k:' + to });
    }
    const peak = Math.max(1, ...entry.live);
    entry.live.forEach((live, k) => {
      const w = 120 * live / peak;
      this.world.append(svg('rect', { x: -12 - w, y: k * row + 4, width: w, height: 16, rx: 2, class: 'leaf item' }, svg('title', {}, `${bytes(live)} live`)));
    });
    this.world.append(svg('text', { x: -12, y: -12, 'text-anchor': 'end', class: 'small' }, 'live bytes'));
    this.extent = { x: -140, y: -30, w: width + 380, h: entry.kernels.length * row + 40 };
  }

  drawLegend() {
    const swatch = (kind, text) => html('span', {}, html('i', { class: 'swatch-' + kind }), text);
    const parts = [swatch('forward', 'forward'), swatch('gradient', 'backward'), swatch('optimiser', 'optimiser'), swatch('leaf', 'input, state, constant'), swatch('result', 'output')];
    if (this.app.stage.changes) {
      for (const kind of ['added', 'changed', 'removed']) {
        parts.push(html('span', { class: kind }, html('i', { style: kind === 'removed' ? 'border-style:dashed' : 'border-width:3px' }), kind));
      }
    }
    this.legend.replaceChildren(...parts);
  }

  /** Shows what is chosen and what it is tied to. */
  mark() {
    const chosen = this.app.chosen, { entry, stage } = this.app;
    this.ties?.remove();
    for (const element of this.elements.values()) element.classList.remove('chosen', 'found');
    for (const edge of this.edgeElements) edge.path.classList.remove('near');
    const ids = this.idsOf(chosen);
    for (const id of ids) this.elements.get(id)?.classList.add('chosen');
    for (const edge of this.edgeElements) if (ids.has(edge.from) || ids.has(edge.to)) edge.path.classList.add('near');
    if (!chosen || chosen.kind !== 'node' || !(stage instanceof Stage)) return;
    // Ties to operands and users that are in other boxes, over what the layout draws.
    const node = stage.node(chosen.id);
    if (!node) return;
    const own = this.shown(node.name);
    if (!own) return;
    this.ties = svg('g');
    const draw = (name, isUser) => {
      const other = this.shown(name);
      if (!other || other === own || this.edgeElements.some(e => e.from === (isUser ? own : other).id && e.to === (isUser ? other : own).id)) return;
      const [a, b] = isUser ? [own, other] : [other, own];
      const p = this.positions.get(a.id), q = this.positions.get(b.id);
      const from = { x: p.x, y: p.y + p.h / 2 }, to = { x: q.x, y: q.y - q.h / 2 }, bend = Math.max(24, Math.abs(to.y - from.y) / 2);
      this.ties.append(svg('path', { class: 'tie', d: `M${from.x},${from.y} C${from.x},${from.y + bend} ${to.x},${to.y - bend} ${to.x},${to.y}`, 'marker-end': 'url(#head)' }));
    };
    node.operands.forEach(name => draw(name, false));
    (stage.users.get(node.name) ?? []).forEach(user => draw(user.name, true));
    this.world.append(this.ties);
  }

  /** The box that is drawn for a node: its own, or the closed one around it. */
  shown(name) {
    let item = this.items.get('n:' + name), box = item && this.positions.has(item.id) ? item : null;
    for (let at = item; at && at !== this.root; at = at.parent) if (this.positions.has(at.id) && !box) box = at;
    return box;
  }

  idsOf(chosen) {
    const { entry, stage } = this.app, ids = new Set();
    if (!chosen) return ids;
    const add = name => {
      const index = entry.nameIndex?.get(name) ?? entry.names.indexOf(name);
      if (stage instanceof Stage) {
        const box = this.shown(index);
        if (box) ids.add(box.id);
        for (const id of this.elements.keys()) if (id.startsWith(`l:${index}@`)) ids.add(id);
      } else {
        for (const k of entry.kernelsOf.get(name) ?? []) {
          const inner = `n:${index}@${k}`;
          ids.add(this.elements.has(inner) ? inner : 'k:' + k);
        }
      }
    };
    if (chosen.kind === 'node') add(chosen.id);
    if (chosen.kind === 'kernel') {
      if (stage instanceof Stage) entry.kernels[chosen.id].nodes.forEach(n => add(entry.names[n]));
      else ids.add('k:' + chosen.id);
    }
    if (chosen.kind === 'buffer') {
      const buffer = entry.buffers[chosen.id];
      if (stage instanceof Stage) buffer.nodes.forEach(n => add(entry.names[n]));
      else buffer.writers.concat(buffer.readers).forEach(k => ids.add('k:' + k));
    }
    return ids;
  }

  /** Opens what is around a node and moves it into view. */
  reveal(chosen) {
    const { entry, stage } = this.app;
    if (chosen?.kind === 'node' && stage instanceof Stage) {
      const node = stage.node(chosen.id);
      if (node) this.open(this.pathOf(node).map(step => step.id));
    }
    this.mark();
    const [id] = this.idsOf(chosen);
    const at = id !== undefined && this.positions.get(id);
    if (!at) return;
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width) return;
    this.view.scale = Math.max(this.view.scale, 0.75);
    this.view.x = width / 2 - at.x * this.view.scale;
    this.view.y = height / 2 - at.y * this.view.scale;
    this.place();
  }

  // The window on it

  place() {
    const { x, y, scale } = this.view;
    this.world.setAttribute('transform', `translate(${x},${y}) scale(${scale})`);
  }

  zoomBy(factor) {
    const { width, height } = this.svg.getBoundingClientRect();
    this.zoomAt({ x: width / 2, y: height / 2 }, factor);
  }

  zoomAt(point, factor) {
    const scale = Math.min(4, Math.max(0.03, this.view.scale * factor)), by = scale / this.view.scale;
    this.view = { x: point.x - (point.x - this.view.x) * by, y: point.y - (point.y - this.view.y) * by, scale };
    this.place();
  }

  /** Shows the whole where it can be read then (or is wanted all the same), else its top at a size that can. */
  fit(whole = false) {
    const { width, height } = this.svg.getBoundingClientRect();
    this.unseen = !width || !height;
    if (this.unseen || !this.extent) return;
    const { x = 0, y = 0, w, h } = this.extent, margin = 24, foot = 44;
    let scale = Math.min(1.2, (width - 2 * margin) / w, (height - margin - foot) / h);
    const readable = Math.min(0.62, Math.max(0.3, (width - 2 * margin) / w));
    if (!whole && scale < readable) scale = readable;
    this.view = {
      scale,
      x: (width - w * scale) / 2 - x * scale,
      y: h * scale + margin + foot <= height ? (height - foot - h * scale) / 2 + margin / 2 - y * scale : margin - y * scale,
    };
    this.place();
  }
}

function badgeText(group) {
  const parts = [];
  if (group.added) parts.push({ kind: 'added', text: '+' + group.added });
  if (group.removed) parts.push({ kind: 'removed', text: '−' + group.removed });
  if (group.changed) parts.push({ kind: 'changed', text: '~' + group.changed });
  return parts;
}

function clip(text, most = MAX_LABEL) {
  if (text.length <= most) return text;
  const head = Math.ceil(most * 0.55);
  return text.slice(0, head) + '…' + text.slice(text.length - (most - head - 1));
}

const textWidth = (() => {
  const context = document.createElement('canvas').getContext('2d');
  context.font = '12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  const known = new Map();
  return text => {
    if (!known.has(text)) known.set(text, context.measureText(text).width || text.length * CHAR);
    return known.get(text);
  };
})();

/**
 * The points of an edge, straight up and down within each rank that it starts in, passes or ends in: what stands beside
 * it there may be far higher than the rank's other boxes.
 */
function route(points, from, to, bands) {
  const half = y => bands.get(Math.round(y)) ?? 0, inner = points.slice(1, -1), found = [];
  const down = from.y < to.y, sign = down ? 1 : -1;
  const within = (box, x) => Math.max(box.x - box.width / 2 + 10, Math.min(box.x + box.width / 2 - 10, x));
  const first = { x: within(from, points[0].x) }, last = { x: within(to, points[points.length - 1].x) };
  found.push({ x: first.x, y: from.y + sign * from.height / 2 }, { x: first.x, y: from.y + sign * half(from.y) });
  for (const p of inner) {
    const h = half(p.y);
    found.push({ x: p.x, y: p.y - sign * h });
    if (h) found.push({ x: p.x, y: p.y + sign * h });
  }
  found.push({ x: last.x, y: to.y - sign * half(to.y) }, { x: last.x, y: to.y - sign * to.height / 2 });
  return found;
}

/** A path that leaves and enters every point upright. */
function curve(points) {
  let d = `M${points[0].x},${points[0].y}`;
  for (let i = 1; i < points.length; i++) {
    const a = points[i - 1], b = points[i];
    if (a.x === b.x && a.y === b.y) continue;
    if (Math.abs(a.x - b.x) < 0.5 || a.y === b.y) d += `L${b.x},${b.y}`;
    else {
      const middle = (a.y + b.y) / 2;
      d += `C${a.x},${middle} ${b.x},${middle} ${b.x},${b.y}`;
    }
  }
  return d;
}
