'use strict';
// Draws the part of a graph that is in the window. What is too small to read is drawn as one path per colour.

const SMALL = 7; // pixels of height below which boxes are drawn together
const FAR = 0.45; // the scale below which groups are named on top of what is in them
const MOST_MOVING = 700; // elements beyond which nothing is animated

class Painter {
  constructor(graph) {
    this.graph = graph;
    const layer = kind => {
      const g = svg('g', { class: kind });
      graph.world.append(g);
      return g;
    };
    this.deep = [0, 1, 2, 3].map(depth => ({
      boxes: layer('boxes depth-' + depth),
      many: layer('many'),
      edges: layer('edges'),
    }));
    this.ties = layer('ties');
    this.names = layer('names');
    this.elements = new Map(); // box -> { element, key, x, y }
    this.lines = new Map(); // an edge's place in the scene -> its path
  }

  clear() {
    for (const { element } of this.elements.values()) element.remove();
    this.elements.clear();
    this.reset(null);
    for (const { many, edges } of this.deep) {
      many.replaceChildren();
      edges.replaceChildren();
    }
    this.ties.replaceChildren();
    this.names.replaceChildren();
  }

  /** Another layout: its edges are others. */
  reset(old) {
    for (const path of this.lines.values()) path.remove();
    this.lines.clear();
    this.moving = Boolean(old);
    this.region = null;
  }

  /** Whether what was drawn reaches as far as the window. */
  covers({ x, y, w, h }, scale) {
    const r = this.region;
    return (
      r &&
      x >= r.x &&
      y >= r.y &&
      x + w <= r.x + r.w &&
      y + h <= r.y + r.h &&
      scale < r.scale * 1.25 &&
      scale > r.scale * 0.8
    );
  }

  paint() {
    const { graph } = this,
      { scale } = graph.view,
      seen = graph.region;
    const r = (this.region = {
      x: seen.x - seen.w * MARGIN,
      y: seen.y - seen.h * MARGIN,
      w: seen.w * (1 + 2 * MARGIN),
      h: seen.h * (1 + 2 * MARGIN),
      scale,
    });
    const within = p => p.x < r.x + r.w && p.x + p.w > r.x && p.y < r.y + r.h && p.y + p.h > r.y;
    graph.world.classList.toggle('far', scale < FAR);
    const wanted = new Map(),
      together = this.deep.map(() => new Map());
    for (const box of graph.drawn) {
      const p = graph.place(box);
      if (!within(p)) continue;
      const marked = graph.chosenBoxes.has(box) || graph.foundBoxes.has(box);
      if (p.h * scale >= SMALL || marked) wanted.set(box, p);
      else {
        const kind = this.classOf(box, p),
          paths = together[Math.min(3, box.depth)];
        paths.set(kind, (paths.get(kind) ?? '') + `M${p.x},${p.y}h${p.w}v${p.h}h${-p.w}z`);
      }
    }
    for (const [box, { element }] of this.elements)
      if (!wanted.has(box)) {
        element.remove();
        this.elements.delete(box);
      }
    const animate = this.moving && !CALM.matches && wanted.size < MOST_MOVING;
    for (const [box, p] of wanted) this.update(box, p, animate);
    this.moving = false;
    this.deep.forEach(({ many }, depth) =>
      many.replaceChildren(
        ...[...together[depth]].map(([kind, d]) =>
          svg('g', { class: kind }, svg('path', { class: 'together', d, 'vector-effect': 'non-scaling-stroke' })),
        ),
      ),
    );
    this.paintEdges(within, scale);
    this.paintTies();
    this.paintNames(wanted, scale);
  }

  /** Marks what is drawn; false where something is to be marked that is not. */
  marks() {
    const { graph, region } = this;
    if (!region || graph.view.scale < FAR) return false;
    for (const box of [...graph.chosenBoxes, ...graph.foundBoxes]) {
      const p = graph.place(box),
        inside = p.x < region.x + region.w && p.x + p.w > region.x && p.y < region.y + region.h && p.y + p.h > region.y;
      if (inside && !this.elements.has(box)) return false;
    }
    for (const [box, { element }] of this.elements) {
      element.classList.toggle('chosen', graph.chosenBoxes.has(box));
      element.classList.toggle('found', graph.foundBoxes.has(box));
    }
    const { edges } = graph.scene,
      { boxes } = graph.tree;
    for (const [e, path] of this.lines)
      path.classList.toggle(
        'near',
        graph.chosenBoxes.has(boxes[edges[2 * e]]) || graph.chosenBoxes.has(boxes[edges[2 * e + 1]]),
      );
    this.paintTies();
    return true;
  }

  classOf(box, p) {
    const mark = this.graph.here.mark[box.index],
      role = this.roleOf(box);
    return `${role}${p.open ? ' open' : ''}${box.isResult ? ' result' : ''}${mark ? ' is-' + mark : ''}`;
  }

  /** A node may become a constant: it is then drawn as one. */
  roleOf(box) {
    return (box.isGroup || box.isResult ? box.role : (this.graph.here.node[box.index]?.role ?? box.role)).kind;
  }

  update(box, p, animate) {
    const { graph } = this,
      { here } = graph,
      known = this.elements.get(box),
      i = box.index;
    const key = box.isGroup
      ? [p.open, here.nodes[i], here.added?.[i], here.removed?.[i], here.changed?.[i]].join(' ')
      : here.node[i];
    const mark = here.mark[i],
      same = known && known.key === key && known.mark === mark && known.w === p.w && known.h === p.h;
    const shown = same ? known : { element: this.element(box, p), key, mark, w: p.w, h: p.h };
    if (!same) {
      if (known) known.element.replaceWith(shown.element);
      else {
        this.deep[Math.min(3, box.depth)].boxes.append(shown.element);
        if (animate) shown.element.classList.add('appears');
      }
      this.elements.set(box, shown);
    }
    if (shown.x !== p.x || shown.y !== p.y) {
      shown.element.setAttribute('transform', `translate(${p.x},${p.y})`);
      if (animate && known) {
        const to = `translate(${p.x}px,${p.y}px)`;
        shown.element.animate([{ transform: `translate(${known.x}px,${known.y}px)` }, { transform: to }], {
          duration: 240,
          easing: 'ease-out',
        });
      }
      Object.assign(shown, { x: p.x, y: p.y });
    }
    shown.element.classList.toggle('chosen', graph.chosenBoxes.has(box));
    shown.element.classList.toggle('found', graph.foundBoxes.has(box));
  }

  element(box, p) {
    const { graph } = this,
      { here, tree } = graph,
      role = this.roleOf(box),
      mark = here.mark[box.index];
    const name = box.isGroup || box.label ? box.label : graph.app.entry.names[box.name];
    const element = svg('g', {
      class: 'box ' + this.classOf(box, p),
      tabindex: 0,
      role: 'button',
      'data-id': box.id,
      'data-box': box.index,
      'aria-label': `${name}, ${box.isGroup ? 'group' : roleName(box.role)}${mark ? ', ' + mark : ''}`,
    });
    const closed = box.isGroup && !p.open && box.children.length > 0;
    element.append(
      svg('rect', { width: p.w, height: p.h, rx: box.isGroup ? 8 : role === 'leaf' ? Math.min(12, p.h / 2) : 4 }),
    );
    if (closed) element.append(svg('rect', { x: 3, y: 3, width: p.w - 6, height: p.h - 6, rx: 6, class: 'rim' }));
    if (box.isGroup && box.children.length) {
      element.setAttribute('aria-expanded', p.open);
      const at = { class: 'chevron' };
      element.append(
        svg(
          'g',
          at,
          svg('rect', { x: 1, y: 1, width: 22, height: p.open ? HEAD - 3 : p.h - 2, rx: 7 }),
          svg('path', { d: p.open ? 'M8,10.5 l4,5 l4,-5' : `M10,${p.h / 2 - 4} l5,4 l-5,4` }),
        ),
      );
    }
    const badge = box.isGroup ? this.badge(box) : [];
    if (p.open) {
      const more = many(here.nodes[box.index], 'node');
      element.append(
        svg(
          'text',
          { x: 24, y: 17, class: 'head' },
          clip(box.label, 60),
          svg('tspan', { class: 'small', dx: 8 }, more),
        ),
      );
    } else {
      const lines = tree.lines(box, here),
        shift = closed ? 8 : 0;
      lines.forEach((line, i, all) => {
        const y = all.length > 1 ? 16 + i * 14 : p.h / 2 + 4,
          left = badge.length && i === 0 ? 26 : 0;
        element.append(
          svg('text', { x: p.w / 2 + shift - left, y, 'text-anchor': 'middle', class: i ? 'small' : '' }, line),
        );
      });
    }
    if (badge.length) {
      const text = svg('text', { x: p.w - 7, y: p.open ? 17 : 15, 'text-anchor': 'end', class: 'badge' });
      badge.forEach(([kind, sign], i) =>
        text.append(svg('tspan', { class: kind }, (i ? ' ' : '') + sign + here[kind][box.index])),
      );
      element.append(text);
    }
    element.append(svg('title', {}, this.tooltip(box)));
    return element;
  }

  badge(box) {
    const { here } = this.graph;
    return [
      ['added', '+'],
      ['removed', '−'],
      ['changed', '~'],
    ].filter(([kind]) => here[kind]?.[box.index]);
  }

  tooltip(box) {
    const { app, here } = this.graph;
    if (box.kernel !== undefined) return app.entry.kernels[box.kernel].name;
    if (box.isGroup)
      return `${box.label}: ${many(here.nodes[box.index], 'node')}\nopen or close: double click, or the arrow`;
    return here.node[box.index]?.text ?? box.label;
  }

  paintEdges(within, scale) {
    const { graph } = this,
      { scene, here, tree } = graph,
      { edges, points, starts } = scene;
    const far = scale < FAR,
      thin = this.deep.map(() => ''),
      wanted = new Set();
    for (let e = 0; 2 * e < edges.length; e++) {
      const [from, to] = [edges[2 * e], edges[2 * e + 1]];
      if (!here.edges[tree.edge(from, to)]) continue;
      let left = Infinity,
        right = -Infinity,
        top = Infinity,
        bottom = -Infinity;
      for (let p = starts[e]; p < starts[e + 1]; p += 2) {
        left = Math.min(left, points[p]);
        right = Math.max(right, points[p]);
        top = Math.min(top, points[p + 1]);
        bottom = Math.max(bottom, points[p + 1]);
      }
      if (!within({ x: left, y: top, w: right - left + 1, h: bottom - top + 1 })) continue;
      const near = graph.chosenBoxes.has(tree.boxes[from]) || graph.chosenBoxes.has(tree.boxes[to]);
      const depth = Math.min(3, tree.boxes[from].depth);
      if (far && !near) {
        if ((bottom - top + right - left) * scale < 5) continue;
        const end = starts[e + 1];
        thin[depth] += curve(points, starts[e], end);
        continue;
      }
      wanted.add(e);
      let path = this.lines.get(e);
      if (!path) {
        path = svg('path', { class: 'edge', d: curve(points, starts[e], starts[e + 1]), 'marker-end': 'url(#head)' });
        const [writer, reader] = [tree.boxes[from].kernel, tree.boxes[to].kernel];
        if (writer !== undefined && reader !== undefined)
          path.append(svg('title', {}, missedText(graph.app.entry, writer, reader)));
        this.lines.set(e, path);
        this.deep[depth].edges.append(path);
      }
      path.classList.toggle('near', near);
    }
    for (const [e, path] of this.lines)
      if (!wanted.has(e)) {
        path.remove();
        this.lines.delete(e);
      }
    this.deep.forEach((layer, depth) => {
      layer.thin?.remove();
      layer.thin = thin[depth]
        ? svg('path', { class: 'edge thin', d: thin[depth], 'vector-effect': 'non-scaling-stroke' })
        : null;
      if (layer.thin) layer.edges.prepend(layer.thin);
    });
  }

  paintTies() {
    const { graph } = this;
    this.ties.replaceChildren(
      ...graph.tiesOf(graph.app.chosen).map(([a, b]) => {
        const p = graph.place(a),
          q = graph.place(b),
          from = { x: p.x + p.w / 2, y: p.y + p.h },
          to = { x: q.x + q.w / 2, y: q.y };
        const bend = Math.max(24, Math.abs(to.y - from.y) / 2);
        const d = `M${from.x},${from.y} C${from.x},${from.y + bend} ${to.x},${to.y - bend} ${to.x},${to.y}`;
        return svg('path', { class: 'tie', d, 'marker-end': 'url(#head)' });
      }),
    );
  }

  /** The names of open groups as on a map, where those in their heads are too small to read. */
  paintNames(wanted, scale) {
    const names = [];
    if (scale < FAR) {
      for (const [box, p] of wanted) {
        if (!p.open || p.w * scale < 70) continue;
        const size = 12,
          text = clip(box.label, Math.max(8, Math.floor((p.w * scale) / (size * 0.56)))),
          px = size / scale;
        if (box.depth) continue;
        names.push(
          svg(
            'text',
            {
              x: p.x + p.w / 2,
              y: p.y - px * 0.3,
              'text-anchor': 'middle',
              style: `font-size:${px}px;stroke-width:${4 / scale}px`,
            },
            text,
          ),
        );
      }
    }
    this.names.replaceChildren(...names);
  }
}

/** A path that leaves and enters every point upright. */
function curve(points, start, end) {
  const n = v => Math.round(v * 10) / 10;
  let d = `M${n(points[start])},${n(points[start + 1])}`;
  for (let p = start + 2; p < end; p += 2) {
    const [ax, ay, bx, by] = [points[p - 2], points[p - 1], points[p], points[p + 1]];
    if (ax === bx && ay === by) continue;
    const middle = n((ay + by) / 2);
    d +=
      Math.abs(ax - bx) < 0.5 || ay === by
        ? `L${n(bx)},${n(by)}`
        : `C${n(ax)},${middle} ${n(bx)},${middle} ${n(bx)},${n(by)}`;
  }
  return d;
}
