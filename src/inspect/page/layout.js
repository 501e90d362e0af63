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
const TALL = 1800; // the height from which a narrow column is folded into several, beside each other
const FOLD_MOST = 3; // edges that may lead from one of these columns to another
const GAP = 14,
  LINE_GAP = 8, // between lines, and between them and boxes
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
      at = arrange(w, h, between, isRoot ? ROOT_RANK_GAP : RANK_GAP, !isRoot);
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
function arrange(w, h, edges, rankGap, mayFold) {
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
    const flat = isStrip ? layered(...sizes, within, rankGap) : at,
      isColumn = mayFold && flat.h > TALL && flat.h > 4 * flat.w;
    placed.push({ nodes, own, at: isColumn ? folded(flat, ...sizes, within) : flat });
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

/** A tall column as several of them, cut where hardly an edge passes: each goes on at the top of the next. */
function folded(at, w, h, edges) {
  const top = i => at.y[i] - h[i] / 2,
    order = w.map((_, i) => i).sort((a, b) => top(a) - top(b) || a - b);
  const bands = [],
    band = [];
  for (const i of order) {
    let last = bands[bands.length - 1];
    if (!last || top(i) >= last.bottom) bands.push((last = { top: top(i), bottom: -Infinity, passing: 0 }));
    last.bottom = Math.max(last.bottom, top(i) + h[i]);
    band[i] = bands.length - 1;
  }
  for (const [a, b] of edges) {
    bands[Math.min(band[a], band[b])].passing++;
    bands[Math.max(band[a], band[b])].passing--;
  }
  const high = Math.max(TALL / 3, Math.sqrt((at.h * (at.w + 4 * GAP)) / 1.6)),
    columns = [{ from: 0, top: bands[0].top }],
    column = [0];
  let passing = bands[0].passing;
  for (let b = 1; b < bands.length; b++) {
    const last = columns[columns.length - 1];
    if (bands[b].bottom - last.top > high && passing <= FOLD_MOST) columns.push({ from: b, top: bands[b].top });
    column[b] = columns.length - 1;
    passing += bands[b].passing;
  }
  if (columns.length === 1) return at;
  const of = i => column[band[i]],
    isWithin = ([a, b]) => of(a) === of(b);
  for (const c of columns) Object.assign(c, { left: Infinity, right: -Infinity, bottom: -Infinity });
  const reach = (c, left, right) => {
    c.left = Math.min(c.left, left);
    c.right = Math.max(c.right, right);
  };
  w.forEach((width, i) => {
    const c = columns[of(i)];
    reach(c, at.x[i] - width / 2, at.x[i] + width / 2);
    c.bottom = Math.max(c.bottom, top(i) + h[i] - c.top);
  });
  edges.forEach((edge, e) => {
    if (!isWithin(edge)) return;
    for (let p = 0; p < at.routes[e].length; p += 2) reach(columns[of(edge[0])], at.routes[e][p], at.routes[e][p]);
  });
  // Lines from column to column go below the first, up between both, and in from above.
  const lanes = edges.filter(edge => !isWithin(edge)).length,
    room = LINE_GAP * (1 + Math.min(lanes, FOLD_MOST)),
    below = Math.max(...columns.map(c => c.bottom));
  let next = 0;
  for (const c of columns) {
    c.dx = next - c.left;
    c.dy = room - c.top;
    next += c.right - c.left + 2 * room;
  }
  let line = 0;
  const routes = edges.map((edge, e) => {
    const route = at.routes[e],
      [p, q] = [columns[of(edge[0])], columns[of(edge[1])]];
    if (p === q) return route.map((v, k) => v + (k % 2 ? p.dy : p.dx));
    const own = LINE_GAP * (1 + (line++ % FOLD_MOST)),
      up = q.left + q.dx - own,
      before = [],
      after = [],
      end = p.top + p.bottom;
    for (let k = 0; k < route.length; k += 2) {
      if (route[k + 1] <= end + 0.5) before.push(route[k] + p.dx, route[k + 1] + p.dy);
      else if (route[k + 1] >= q.top - 0.5) after.push(route[k] + q.dx, route[k + 1] + q.dy);
    }
    const x = before[before.length - 2],
      down = room + below + own,
      above = room - own;
    return [...before, x, down, up, down, up, above, after[0], above, ...after];
  });
  return {
    x: w.map((_, i) => at.x[i] + columns[of(i)].dx),
    y: w.map((_, i) => at.y[i] + columns[of(i)].dy),
    routes,
    w: next - 2 * room,
    h: below + 2 * room,
  };
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
    lines = edges.map(([a, b]) => g.edge(String(a), String(b)).points),
    width = compacted(nodes, edges, lines),
    bands = new Map(); // by a rank's middle, half its greatest height
  for (const { y, height } of nodes) {
    const key = Math.round(y);
    bands.set(key, Math.max(bands.get(key) ?? 0, height / 2));
  }
  const routes = edges.map(([a, b], e) => route(lines[e], nodes[a], nodes[b], bands));
  return { x: nodes.map(p => p.x), y: nodes.map(p => p.y), routes, w: width, h: g.graph().height };
}

/**
 * Moves nodes and the points between them closer together, in the ranks and the order that they have: what stands
 * straight above each other moves as one, first as far to the left as its neighbours let it, then towards what it is
 * tied to. Returns the width of all.
 */
function compacted(nodes, edges, lines) {
  const items = nodes.map(node => ({ at: node, half: node.width / 2, sep: GAP / 2 })),
    ties = [];
  lines.forEach((points, e) => {
    let before = edges[e][0];
    for (const at of points.slice(1, -1)) {
      items.push({ at, half: 0, sep: LINE_GAP / 2 });
      ties.push([before, items.length - 1]);
      before = items.length - 1;
    }
    ties.push([before, edges[e][1]]);
  });
  const piece = items.map((_, i) => i);
  const find = i => {
    while (piece[i] !== i) i = piece[i] = piece[piece[i]];
    return i;
  };
  for (const [a, b] of ties) if (Math.abs(items[a].at.x - items[b].at.x) < 0.01) piece[find(a)] = find(b);
  const ranks = new Map(),
    left = items.map(() => []),
    right = items.map(() => []),
    near = items.map(() => []);
  items.forEach(({ at }, i) => {
    const y = Math.round(at.y);
    if (!ranks.has(y)) ranks.set(y, []);
    ranks.get(y).push(i);
  });
  for (const row of ranks.values()) {
    row.sort((a, b) => items[a].at.x - items[b].at.x || a - b);
    for (let i = 1; i < row.length; i++) {
      const [a, b] = [row[i - 1], row[i]];
      if (find(a) === find(b)) continue;
      const apart = items[a].half + items[a].sep + items[b].half + items[b].sep;
      left[find(b)].push([find(a), apart]);
      right[find(a)].push([find(b), apart]);
    }
  }
  for (const [a, b] of ties) {
    const [p, q] = [find(a), find(b)];
    if (p === q) continue;
    near[p].push(q);
    near[q].push(p);
  }
  const pieces = items.map((_, i) => i).filter(i => find(i) === i),
    x = new Array(items.length).fill(0);
  pieces.sort((a, b) => items[a].at.x - items[b].at.x || a - b);
  const least = b => left[b].reduce((most, [a, apart]) => Math.max(most, x[a] + apart), -Infinity),
    most = b => right[b].reduce((less, [a, apart]) => Math.min(less, x[a] - apart), Infinity);
  for (const b of pieces) x[b] = Math.max(0, least(b));
  for (let sweep = 0; sweep < 24; sweep++) {
    for (const b of sweep % 2 ? pieces : [...pieces].reverse()) {
      if (!near[b].length) continue;
      const places = near[b].map(n => x[n]).sort((p, q) => p - q),
        wish = (places[(places.length - 1) >> 1] + places[places.length >> 1]) / 2;
      x[b] = Math.max(least(b), Math.min(most(b), wish));
    }
  }
  const from = items.reduce((less, { half }, i) => Math.min(less, x[find(i)] - half), Infinity);
  let width = 0;
  items.forEach(({ at, half }, i) => {
    at.x = x[find(i)] - from;
    width = Math.max(width, at.x + half);
  });
  for (const points of lines) {
    points[0].x = points[1].x;
    points[points.length - 1].x = points[points.length - 2].x;
  }
  return width;
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
