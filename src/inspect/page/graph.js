'use strict';
// The graph at a stage: which boxes are open, where the window is, what is marked.

const ORDER = 3; // the level that lists kernels in their order
const ENOUGH = 8; // boxes of a call in the window at the start
const CANDIDATES = 50; // calls at which the window may begin at the start, the highest
const MARGIN = 0.4; // around the window, in windows, that is drawn besides

class GraphView extends Canvas {
  constructor(host, app) {
    super(host, 'Graph');
    this.app = app;
    this.level = 1;
    this.toggled = new Map(); // group id -> open or not, where it was opened or closed by hand
    this.painter = new Painter(this);
    this.notice = html('div', { class: 'notice', role: 'status' }, 'laying out…');
    this.notice.hidden = true;
    this.layouts = new Layouts(this.notice);
    this.legend = html('div', { class: 'legend' });
    const button = (text, label, act) => html('button', { 'aria-label': label, title: label, onclick: act }, text);
    const sheet = html('div', { class: 'sheet' }, this.svg, this.notice);
    host.append(
      sheet,
      html(
        'div',
        { class: 'foot' },
        this.legend,
        html(
          'span',
          { class: 'zoom' },
          button('−', 'Smaller (−)', () => this.zoomBy(1 / 1.3)),
          button('+', 'Larger (+)', () => this.zoomBy(1.3)),
          button('⤢', 'The whole (0)', () => this.fit(true)),
        ),
      ),
    );
    this.svg.addEventListener('keydown', event => this.key(event));
    new ResizeObserver(() => {
      if (this.unseen) this.fit();
      else this.paintSoon();
    }).observe(sheet);
  }

  get isKernels() {
    return this.app.stage.name === KERNELS;
  }

  get inOrder() {
    return this.isKernels && this.level === ORDER;
  }

  // Opening and choosing

  /** The box under a point: the element's own, or of those that are drawn together. */
  boxAt(event, point) {
    const element = event.target.closest?.('.box');
    if (element) return this.tree.boxes[element.dataset.box];
    let found = null;
    for (const box of this.drawn ?? []) {
      const p = this.place(box);
      if (point.x >= p.x && point.x <= p.x + p.w && point.y >= p.y && point.y <= p.y + p.h) found = box;
    }
    return found;
  }

  clicked(event, point) {
    const box = this.boxAt(event, point);
    if (!box) return this.app.choose(null);
    if (event.target.closest?.('.chevron')) return this.toggle(box);
    this.chooseBox(box);
  }

  clickedTwice(event, point) {
    const box = this.boxAt(event, point);
    if (box?.isGroup) this.toggle(box);
  }

  key(event) {
    const element = event.target.closest?.('.box'),
      box = element && this.tree.boxes[element.dataset.box];
    if (!box || (event.key !== 'Enter' && event.key !== ' ')) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === ' ' && box.isGroup) this.toggle(box);
    else this.chooseBox(box);
  }

  chooseBox(box) {
    const { entry } = this.app,
      stay = { stay: true };
    if (box.kernel !== undefined) this.app.choose({ kind: 'kernel', id: box.kernel }, stay);
    else if (box.isGroup) this.app.choose({ kind: 'group', id: box.id }, stay);
    else if (box.buffer !== undefined) this.app.choose({ kind: 'buffer', id: box.buffer }, stay);
    else this.app.choose({ kind: 'node', id: entry.names[this.here.node[box.index].name] }, stay);
  }

  /** Opens or closes a box where it is on the screen. */
  toggle(box) {
    if (!box.children.length || this.inOrder) return;
    this.toggled.set(box.id, !this.isOpen(box));
    this.draw({ anchor: box });
  }

  isOpen(box) {
    return this.toggled.get(box.id) ?? this.tree.isOpenAt(box, this.level);
  }

  setLevel(level) {
    this.level = level;
    this.toggled.clear();
    this.draw({ fit: true });
  }

  /** Opens what is chosen and every box around it, and goes there. */
  openAround(chosen) {
    const boxes = this.boxesOf(chosen);
    for (const box of boxes) for (const at of box.path) if (at.isGroup) this.toggled.set(at.id, true);
    this.draw({ reveal: true });
  }

  // What is drawn

  /** Draws the stage; asks for a layout where none is known yet. */
  draw(how = {}) {
    if (this.inOrder) {
      this.scene = null;
      this.painter.clear();
      this.layouts.told();
      drawSchedule(this);
      this.drawLegend();
      this.mark();
      if (how.fit || this.unseen !== false) this.fit();
      if (how.reveal) this.reveal(this.app.chosen);
      this.app.playHead.show();
      return;
    }
    this.orderElements = null;
    this.world.querySelector('.order')?.remove();
    const tree = this.app.entry.tree(this.isKernels),
      other = tree !== this.tree || !this.scene;
    // Before the tree changes: where on the screen what is chosen stands.
    const kept = this.anchor(how.anchor);
    if (other) {
      this.painter.clear();
      this.scene = null;
    }
    this.tree = tree;
    this.here = tree.at(this.app.stage.index);
    const open = [];
    for (const box of tree.boxes)
      if (box.isGroup && box.children.length && box.parent && this.isOpen(box)) open.push(box.index);
    this.wanted = { ...this.wanted, ...how, kept };
    let shown = false;
    this.layouts.ask(tree, open, scene => {
      shown = true;
      this.show(scene, true);
    });
    if (!shown && this.scene) this.show(this.scene, false);
  }

  /** What to keep on its place of the screen: the box that is acted on, or what is chosen. */
  anchor(box) {
    if (!this.scene) return null;
    const ids = box ? [box.id] : this.shownBoxes(this.boxesOf(this.app.chosen)).map(shown => shown.id);
    const at = ids.length ? this.tree.byId.get(ids[0]) : null,
      p = at && this.place(at);
    if (!p) return null;
    const { x, y, scale } = this.view;
    return { box: at, chosen: !box, screen: { x: p.x * scale + x, y: p.y * scale + y } };
  }

  /** Draws the stage in a layout: the one that was asked for, or the one before until that is there. */
  show(scene, isLast) {
    const changed = scene !== this.scene,
      old = changed ? this.slots : null;
    if (changed) {
      this.scene = scene;
      this.slots = new Map();
      for (let i = 0; i < scene.boxes.length; i += 6) this.slots.set(scene.boxes[i], i);
    }
    const { tree, here } = this,
      b = scene.boxes;
    this.drawn = [];
    this.cachedPositions = null;
    const extent = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
    for (let i = 0; i < b.length; i += 6) {
      if (!here.shown[b[i]]) continue;
      this.drawn.push(tree.boxes[b[i]]);
      extent.left = Math.min(extent.left, b[i + 1]);
      extent.top = Math.min(extent.top, b[i + 2]);
      extent.right = Math.max(extent.right, b[i + 1] + b[i + 3]);
      extent.bottom = Math.max(extent.bottom, b[i + 2] + b[i + 4]);
    }
    const { left, top, right, bottom } = this.drawn.length ? extent : { left: 0, top: 0, right: 1, bottom: 1 };
    this.extent = { x: left, y: top, w: right - left, h: bottom - top };
    const how = this.wanted ?? {};
    if (isLast) this.wanted = null;
    if (changed) this.painter.reset(old);
    this.mark(false);
    if (changed && how.kept) this.keep(how.kept);
    if ((isLast && how.fit && !how.kept) || this.unseen !== false) this.fit();
    if (!isLast || !how.reveal || !this.reveal(this.app.chosen)) this.neverEmpty();
    this.drawLegend();
    this.paint();
    this.app.playHead.show();
  }

  keep({ box, chosen, screen }) {
    const [now] = chosen ? this.shownBoxes(this.boxesOf(this.app.chosen)) : [box],
      p = now && this.place(now);
    if (p) this.moveTo({ ...this.view, x: screen.x - p.x * this.view.scale, y: screen.y - p.y * this.view.scale });
  }

  /** Where a box stands: left, top, width, height; nothing where it is in a closed one. */
  place(box) {
    const at = this.slots.get(box.index),
      b = this.scene.boxes;
    return at === undefined ? null : { x: b[at + 1], y: b[at + 2], w: b[at + 3], h: b[at + 4], open: b[at + 5] === 1 };
  }

  /** By the id of what is drawn at this stage, its middle and size. */
  get positions() {
    if (this.inOrder) return this.orderPositions;
    return (this.cachedPositions ??= new Map(
      this.drawn.map(box => {
        const { x, y, w, h } = this.place(box);
        return [box.id, { x: x + w / 2, y: y + h / 2, w, h }];
      }),
    ));
  }

  /** Goes to the nearest box where a stage has none in the window. */
  neverEmpty() {
    const { x, y, w, h } = this.region;
    if (!w || !this.drawn.length) return;
    let nearest = null,
      least = Infinity;
    for (const box of this.drawn) {
      const p = this.place(box);
      if (p.open) continue;
      const dx = Math.max(x - p.x - p.w + 30, p.x + 30 - x - w, 0),
        dy = Math.max(y - p.y - p.h + 20, p.y + 20 - y - h, 0);
      if (dx + dy < least) {
        least = dx + dy;
        nearest = p;
      }
      if (!least) return;
    }
    if (nearest) this.center(nearest);
  }

  center(p) {
    const { width, height } = this.size,
      { scale } = this.view;
    this.glideTo({ scale, x: width / 2 - (p.x + p.w / 2) * scale, y: height / 2 - (p.y + p.h / 2) * scale });
  }

  drawLegend() {
    const swatch = (kind, text) => html('span', {}, html('i', { class: 'swatch-' + kind }), text);
    const parts = [
      swatch('forward', 'forward'),
      swatch('gradient', 'backward'),
      swatch('optimiser', ROLE_WORDS.optimiser),
      swatch('leaf', 'input, state, constant'),
      swatch('result', 'output'),
    ];
    if (this.app.stage.changes && !this.inOrder) {
      for (const kind of ['added', 'changed', 'removed'])
        parts.push(html('span', { class: kind }, html('i', { class: 'is-' + kind }), kind));
    }
    this.legend.replaceChildren(...parts);
  }

  // What is marked

  /** The boxes of what is chosen, whether drawn or not. */
  boxesOf(chosen) {
    const { entry } = this.app,
      { tree } = this,
      found = [];
    if (!chosen || !tree) return found;
    const add = name => {
      const index = entry.indexOf(name);
      if (tree.kind === 'kernels')
        for (const k of entry.kernelsOf.get(name) ?? []) found.push(tree.byId.get(`n:${index}@${k}`));
      else if (tree.own.has(index)) found.push(tree.own.get(index));
      else found.push(...(tree.leaves.get(index) ?? []));
    };
    if (chosen.kind === 'node') add(chosen.id);
    if (chosen.kind === 'line') {
      const stage = this.app.stage instanceof Stage ? this.app.stage : entry.last;
      for (const node of stage.nodes)
        if (node.line === chosen.id && node.role.kind !== 'leaf') add(entry.names[node.name]);
    }
    if (chosen.kind === 'group' && tree.byId.has(chosen.id)) found.push(tree.byId.get(chosen.id));
    if (chosen.kind === 'kernel') {
      if (tree.kind === 'kernels') found.push(tree.byId.get('k:' + chosen.id));
      else entry.kernels[chosen.id].nodes.forEach(n => add(entry.names[n]));
    }
    if (chosen.kind === 'buffer') {
      const buffer = entry.buffers[chosen.id];
      if (tree.kind === 'graph') buffer.nodes.forEach(n => add(entry.names[n]));
      else buffer.writers.concat(buffer.readers).forEach(k => found.push(tree.byId.get('k:' + k)));
    }
    return found.filter(Boolean);
  }

  /** What is drawn for boxes at this stage: themselves, or the closed ones around them, each once. */
  shownBoxes(boxes) {
    if (!this.scene) return [];
    const found = new Set();
    for (const box of boxes) {
      if (!this.here.shown[box.index]) continue;
      let at = box;
      while (at.parent && !this.slots.has(at.index)) at = at.parent;
      if (at.parent) found.add(at);
    }
    return [...found];
  }

  /** Marks what is chosen, what was found, and what the chosen is tied to. */
  mark(paint = true) {
    if (this.inOrder) return markSchedule(this);
    if (!this.scene) return;
    const { chosen, hits } = this.app;
    this.chosenBoxes = new Set(this.shownBoxes(this.boxesOf(chosen)));
    this.foundBoxes = new Set(this.shownBoxes(hits.flatMap(hit => this.boxesOf(hit.chosen))));
    if (paint && !this.painter.marks()) this.paint();
  }

  /** Operands and users of the chosen node that are in other boxes. */
  tiesOf(chosen) {
    if (chosen?.kind !== 'node' || this.tree.kind !== 'graph') return [];
    const { stage } = this.app,
      node = stage.node(chosen.id),
      own = node && this.tree.own.get(node.name);
    const [box] = own ? this.shownBoxes([own]) : [];
    if (!box) return [];
    const shown = name => (this.tree.own.has(name) ? this.shownBoxes([this.tree.own.get(name)]) : []);
    const ties = new Map();
    const add = (from, to) => {
      if (from !== to && this.tree.edge(from.index, to.index) === undefined)
        ties.set(`${from.index} ${to.index}`, [from, to]);
    };
    for (const name of node.operands) for (const other of shown(name)) add(other, box);
    for (const user of stage.users.get(node.name) ?? []) for (const other of shown(user.name)) add(box, other);
    return [...ties.values()];
  }

  /** Brings what is chosen into the window, where it is not there already; says whether it went anywhere. */
  reveal(chosen) {
    if (this.inOrder) return revealInSchedule(this, chosen);
    if (!this.scene) {
      this.wanted = { ...this.wanted, reveal: true };
      return false;
    }
    const [box] = this.shownBoxes(this.boxesOf(chosen)),
      { width, height } = this.size;
    if (!box || !width) return false;
    const p = this.place(box),
      r = this.region,
      scale = Math.max(this.view.scale, 0.6);
    const inside =
      p.x >= r.x && p.y >= r.y && p.x + Math.min(p.w, r.w) <= r.x + r.w && p.y + Math.min(p.h, r.h) <= r.y + r.h;
    if (inside && scale === this.view.scale) return false;
    // Of what is larger than the window, its top.
    const w = Math.min(p.w, (width / scale) * 0.9),
      h = Math.min(p.h, (height / scale) * 0.9);
    const view = {
      scale,
      x: width / 2 - (p.x + p.w / 2 + (w - p.w) / 2) * scale,
      y: height / 2 - (p.y + h / 2) * scale,
    };
    const far = Math.hypot(view.x - this.view.x, view.y - this.view.y) > 3 * (width + height);
    if (far || (!inside && scale !== this.view.scale)) this.moveTo(view);
    else this.glideTo(view);
    return true;
  }

  // The window on it

  moved() {
    this.app?.hover?.hide();
    if (this.painter.covers(this.region, this.view.scale)) return;
    this.paintSoon();
  }

  paintSoon() {
    if (this.painting || !this.scene) return;
    this.painting = requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.painting);
    this.painting = null;
    if (this.scene && this.size.width) this.painter.paint();
  }

  fit(whole = false) {
    const { width, height } = this.size;
    this.unseen = !width || !height;
    if (this.unseen || !this.extent) return;
    this.fitTo(this.extent, whole);
    if (!whole && this.scene && !this.inOrder) this.fitToBest();
  }

  /**
   * Where the window holds only a part: of those that begin or end at a call, the one with enough in it and little cut
   * off, rather high up; what it holds whole is in its middle, as large as it can be.
   */
  fitToBest() {
    const { width, height } = this.size,
      { extent } = this,
      { scale } = this.view,
      margin = 16;
    const w = (width - 2 * margin) / scale,
      h = (height - 2 * margin) / scale;
    if (extent.w <= w && extent.h <= h) return;
    const places = this.drawn.map(box => ({ box, ...this.place(box) })),
      closed = places.filter(p => !p.open),
      outer = places.filter(p => p.box.depth === 0),
      first = [...outer].sort((p, q) => p.y - q.y).slice(0, CANDIDATES);
    // What is larger than the window begins in it.
    const starts = (at, size, shown) => (size > shown ? [at] : [at, at + size - shown, at + (size - shown) / 2]);
    let best = null;
    for (const p of first) {
      for (const left of starts(p.x, p.w, w)) {
        for (const top of starts(p.y, p.h, h)) {
          const inside = q =>
              q.x >= left - 1 && q.x + q.w <= left + w + 1 && q.y >= top - 1 && q.y + q.h <= top + h + 1,
            meets = q => q.x < left + w && q.x + q.w > left && q.y < top + h && q.y + q.h > top;
          const seen = closed.filter(inside),
            own = seen.filter(q => q.box.path[0] === p.box).length,
            cut = outer.filter(q => q !== p && meets(q) && !inside(q)).length,
            late = Math.max(0, p.y - extent.y) / extent.h;
          const score = (Math.min(own, ENOUGH) + Math.min(seen.length - own, ENOUGH) / 4 - cut / 2) / (1 + 4 * late);
          if (!best || score > best.score + 1e-9) best = { score, left, top, held: [p, ...outer.filter(inside)] };
        }
      }
    }
    if (!best) return;
    const left = Math.min(...best.held.map(q => q.x)),
      top = Math.min(...best.held.map(q => q.y)),
      right = Math.min(Math.max(...best.held.map(q => q.x + q.w)), left + w),
      bottom = Math.min(Math.max(...best.held.map(q => q.y + q.h)), top + h);
    const larger = Math.min(
      LARGE,
      Math.max(scale, (w * scale) / (right - left)),
      Math.max(scale, (h * scale) / (bottom - top)),
    );
    this.moveTo({
      scale: larger,
      x: width / 2 - ((left + right) / 2) * larger,
      y: height / 2 - ((top + bottom) / 2) * larger,
    });
  }
}
