'use strict';
// Where boxes stand. Nothing here knows of a page: it runs in a worker, and in the page itself where there is none.
//
// A tree is laid out from the inside out. It is given as arrays over its boxes (the root is box 0): `w` and `h` of a
// closed box, `head` the least width of an open one, `children`, and `inner`, the edges between children as
// from, to, weight, and so on; one whose weight is below zero goes up. Groups that look alike are laid out once.

const PAD = 12,
  HEAD = 26; // around and above what is in an open box
const DAGRE_MOST = 150; // nodes that dagre lays out in good time; beyond, `layered` does
const SIMPLEX_MOST = 40; // nodes for which its slowest way of ranking is worth its while
const LONG = 4000; // the width from which a strip is folded into several rows
const GAP = 14,
  RANK_GAP = 24,
  ROOT_RANK_GAP = 40;

class TreeLayout {
  constructor(tree) {
    this.tree = tree;
    this.known = new Map(); // what a group looks like -> how its children stand
  }

  /** Boxes from the outside in and edges, all at their places on the plane, as arrays that can be handed over. */
  layout(open) {
    const isOpen = new Set(open),
      root = this.group(0, isOpen),
      boxes = [],
      edges = [],
      points = [],
      starts = [0];
    const place = (group, x, y) => {
      group.children.forEach((child, i) => {
        const inner = group.inner[i],
          left = x + group.at.x[i] - group.w[i] / 2,
          top = y + group.at.y[i] - group.h[i] / 2;
        boxes.push(child, left, top, group.w[i], group.h[i], inner ? 1 : 0);
        if (inner) place(inner, left + (group.w[i] - inner.width) / 2, top);
      });
      group.at.routes.forEach((route, e) => {
        edges.push(group.ends[2 * e], group.ends[2 * e + 1]);
        for (let p = 0; p < route.length; p += 2) points.push(route[p] + x, route[p + 1] + y);
        starts.push(points.length);
      });
    };
    place(root, 0, 0);
    return {
      boxes: Float64Array.from(boxes),
      edges: Int32Array.from(edges),
      points: Float32Array.from(points),
      starts: Int32Array.from(starts),
      w: root.width,
      h: root.height,
    };
  }

  group(box, isOpen) {
    const { tree } = this,
      children = tree.children[box],
      edges = tree.inner[box],
      isRoot = box === 0;
    const inner = children.map(child =>
      isOpen.has(child) && tree.children[child].length ? this.group(child, isOpen) : null,
    );
    const w = children.map((child, i) => (inner[i] ? Math.max(inner[i].width, tree.head[child]) : tree.w[child]));
    const h = children.map((child, i) => (inner[i] ? inner[i].height : tree.h[child]));
    const order = new Map(children.map((child, i) => [child, i])),
      ends = [],
      between = [];
    for (let e = 0; e < edges.length; e += 3) {
      ends.push(edges[e], edges[e + 1]);
      between.push([order.get(edges[e]), order.get(edges[e + 1]), edges[e + 2]]);
    }
    const key = `${isRoot}|${w}|${h}|${between.join(';')}`;
    let at = this.known.get(key);
    if (!at) {
      at = arrange(w, h, between, isRoot ? ROOT_RANK_GAP : RANK_GAP);
      if (!isRoot) at = shift(at, PAD, HEAD);
      this.known.set(key, at);
    }
    const width = at.w + (isRoot ? 0 : 2 * PAD),
      height = at.h + (isRoot ? 0 : PAD + HEAD);
    return { children, inner, w, h, at, ends, width, height };
  }
}

function shift(at, dx, dy) {
  return {
    ...at,
    x: at.x.map(x => x + dx),
    y: at.y.map(y => y + dy),
    routes: at.routes.map(route => route.map((v, i) => v + (i % 2 ? dy : dx))),
  };
}

/** Places boxes of these sizes: what hangs together by its own rules, and the parts in rows. */
function arrange(w, h, edges, rankGap) {
  edges = edges.map(([a, b, weight]) => (weight < 0 ? [b, a, -weight, true] : [a, b, weight, false]));
  const n = w.length,
    part = Array.from({ length: n }, (_, i) => i);
  const find = i => {
    while (part[i] !== i) i = part[i] = part[part[i]];
    return i;
  };
  for (const [a, b] of edges) part[Math.max(find(a), find(b))] = Math.min(find(a), find(b));
  const parts = new Map();
  for (let i = 0; i < n; i++) {
    const of = find(i);
    if (!parts.has(of)) parts.set(of, { nodes: [], edges: [] });
    parts.get(of).nodes.push(i);
  }
  edges.forEach((edge, e) => parts.get(find(edge[0])).edges.push(e));
  const placed = [];
  for (const { nodes, edges: own } of parts.values()) {
    const local = new Map(nodes.map((node, i) => [node, i]));
    const within = own.map(e => [local.get(edges[e][0]), local.get(edges[e][1]), edges[e][2]]);
    const sizes = [nodes.map(i => w[i]), nodes.map(i => h[i])];
    const lay = nodes.length <= DAGRE_MOST && own.length <= 4 * DAGRE_MOST ? ranked : layered;
    const at = lay(...sizes, within, rankGap),
      isStrip = lay === ranked && at.w > LONG && at.w > 4 * at.h;
    placed.push({ nodes, own, at: isStrip ? layered(...sizes, within, rankGap) : at });
  }
  // Rows of parts, about half as wide again as high.
  const area = placed.reduce((sum, { at }) => sum + (at.w + GAP) * (at.h + rankGap), 0);
  const most = Math.max(Math.sqrt(area * 1.6), ...placed.map(p => p.at.w));
  const result = { x: new Array(n), y: new Array(n), routes: new Array(edges.length), w: 0, h: 0 };
  let left = 0,
    top = 0,
    row = 0;
  for (const { nodes, own, at } of placed) {
    if (left && left + at.w > most) {
      left = 0;
      top += row + (nodes.length > 1 ? rankGap : GAP);
      row = 0;
    }
    nodes.forEach((node, i) => {
      result.x[node] = at.x[i] + left;
      result.y[node] = at.y[i] + top;
    });
    own.forEach((e, i) => {
      result.routes[e] = at.routes[i].map((v, k) => v + (k % 2 ? top : left));
    });
    for (const e of own) if (edges[e][3]) result.routes[e] = backwards(result.routes[e]);
    row = Math.max(row, at.h);
    result.w = Math.max(result.w, left + at.w);
    result.h = Math.max(result.h, top + at.h);
    left += at.w + GAP;
  }
  return result;
}

/** The points of a route from its other end. */
function backwards(route) {
  const found = [];
  for (let p = route.length - 2; p >= 0; p -= 2) found.push(route[p], route[p + 1]);
  return found;
}

/** By dagre. */
function ranked(w, h, edges, rankGap) {
  if (w.length === 1) return { x: [w[0] / 2], y: [h[0] / 2], routes: [], w: w[0], h: h[0] };
  const g = new dagre.graphlib.Graph();
  const ranker = w.length > SIMPLEX_MOST ? 'tight-tree' : 'network-simplex';
  g.setGraph({ rankdir: 'TB', nodesep: GAP, ranksep: rankGap, edgesep: 8, marginx: 0, marginy: 0, ranker });
  w.forEach((width, i) => g.setNode(String(i), { width, height: h[i] }));
  for (const [a, b, weight] of edges) g.setEdge(String(a), String(b), { weight });
  dagre.layout(g);
  const nodes = w.map((_, i) => g.node(String(i))),
    bands = new Map(); // by a rank's middle, half its greatest height
  for (const { y, height } of nodes) {
    const key = Math.round(y);
    bands.set(key, Math.max(bands.get(key) ?? 0, height / 2));
  }
  const routes = edges.map(([a, b]) => route(g.edge(String(a), String(b)).points, nodes[a], nodes[b], bands));
  const { width, height } = g.graph();
  return { x: nodes.map(p => p.x), y: nodes.map(p => p.y), routes, w: width, h: height };
}

/**
 * The points of an edge, straight up and down within each rank that it starts in, passes or ends in: what stands beside
 * it there may be far higher than the rank's other boxes.
 */
function route(points, from, to, bands) {
  const half = y => bands.get(Math.round(y)) ?? 0,
    sign = from.y < to.y ? 1 : -1;
  const within = (box, x) => Math.max(box.x - box.width / 2 + 10, Math.min(box.x + box.width / 2 - 10, x));
  const first = within(from, points[0].x),
    last = within(to, points[points.length - 1].x);
  const found = [first, from.y + (sign * from.height) / 2, first, from.y + sign * half(from.y)];
  for (const p of points.slice(1, -1)) {
    const high = half(p.y);
    found.push(p.x, p.y - sign * high);
    if (high) found.push(p.x, p.y + sign * high);
  }
  found.push(last, to.y - sign * half(to.y), last, to.y - (sign * to.height) / 2);
  return found;
}

/**
 * In time that grows with the number of edges: ranks by the longest path, ranks ordered by the middle of what they are
 * tied to (Sugiyama, Tagawa & Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981), wide
 * ranks in several rows.
 */
function layered(w, h, edges, rankGap) {
  const n = w.length,
    out = w.map(() => []),
    into = w.map(() => []);
  for (const [a, b] of edges)
    if (a !== b) {
      out[a].push(b);
      into[b].push(a);
    }
  // Longest paths; where nothing is left without operands, there is a circle, and its first node goes first.
  const rank = new Array(n).fill(0),
    waits = into.map(list => list.length),
    done = new Array(n).fill(false);
  const queue = [];
  waits.forEach((count, i) => {
    if (!count) queue.push(i);
  });
  let next = 0;
  for (let at = 0; at < n; at++) {
    if (at === queue.length) {
      while (done[next] || waits[next] <= 0) next++;
      waits[next] = 0;
      queue.push(next);
    }
    const i = queue[at];
    done[i] = true;
    for (const user of out[i]) {
      if (done[user]) continue;
      rank[user] = Math.max(rank[user], rank[i] + 1);
      if (--waits[user] === 0) queue.push(user);
    }
  }
  // What only feeds stands right above its first user.
  for (const i of [...queue].reverse()) {
    if (!into[i].length && out[i].length) rank[i] = Math.max(rank[i], Math.min(...out[i].map(user => rank[user])) - 1);
  }
  const ranks = [];
  rank.forEach((r, i) => (ranks[r] ??= []).push(i));
  const place = new Array(n).fill(0);
  const number = row =>
    row.forEach((i, at) => {
      place[i] = at / Math.max(1, row.length - 1);
    });
  ranks.forEach(number);
  const mean = (list, i) => (list.length ? list.reduce((sum, j) => sum + place[j], 0) / list.length : place[i]);
  for (let sweep = 0; sweep < 4; sweep++) {
    const down = sweep % 2 === 0;
    for (const row of down ? ranks : [...ranks].reverse()) {
      const wish = new Map(row.map(i => [i, mean(down ? into[i] : out[i], i)]));
      row.sort((a, b) => wish.get(a) - wish.get(b) || a - b);
      number(row);
    }
  }
  const area = w.reduce((sum, width, i) => sum + (width + GAP) * (h[i] + rankGap), 0),
    most = Math.max(900, Math.sqrt(area * 2));
  const rows = [];
  for (const row of ranks) {
    let width = Infinity;
    for (const i of row) {
      if (width + w[i] > most) {
        rows.push([]);
        width = 0;
      }
      rows[rows.length - 1].push(i);
      width += w[i] + GAP;
    }
  }
  const x = new Array(n).fill(0),
    y = new Array(n).fill(0);
  let top = 0;
  for (const row of rows) {
    const high = Math.max(...row.map(i => h[i])),
      wide = row.reduce((sum, i) => sum + w[i] + GAP, -GAP);
    let left = -wide / 2;
    for (const i of row) {
      x[i] = left + w[i] / 2;
      y[i] = top + high / 2;
      left += w[i] + GAP;
    }
    top += high + rankGap;
  }
  // Each row towards what it is tied to, without changing its order.
  for (let sweep = 0; sweep < 6; sweep++) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) {
      const wish = row.map(i => {
        const ties = sweep % 2 ? out[i] : into[i];
        return ties.length ? ties.reduce((sum, j) => sum + x[j], 0) / ties.length : x[i];
      });
      let right = -Infinity,
        drift = 0;
      row.forEach((i, k) => {
        x[i] = Math.max(wish[k], right + w[i] / 2);
        right = x[i] + w[i] / 2 + GAP;
        drift += x[i] - wish[k];
      });
      row.forEach(i => {
        x[i] -= drift / row.length;
      });
    }
  }
  const left = Math.min(...x.map((at, i) => at - w[i] / 2)),
    right = Math.max(...x.map((at, i) => at + w[i] / 2));
  const xs = x.map(at => at - left);
  const routes = edges.map(([a, b]) => {
    const sign = y[a] <= y[b] ? 1 : -1;
    return [xs[a], y[a] + (sign * h[a]) / 2, xs[b], y[b] - (sign * h[b]) / 2];
  });
  return { x: xs, y, routes, w: right - left, h: top - rankGap };
}

/** What a worker does with messages: keeps trees by their number, and lays them out. */
function serveLayouts(scope) {
  const trees = new Map();
  scope.onmessage = ({ data }) => {
    if (data.tree) {
      trees.set(data.id, new TreeLayout(data.tree));
      return;
    }
    const result = trees.get(data.id).layout(data.open);
    scope.postMessage({ serial: data.serial, result }, [
      result.boxes.buffer,
      result.edges.buffer,
      result.points.buffer,
      result.starts.buffer,
    ]);
  };
}
