'use strict';
// Kernels in the order in which they run, an arc for every value that one leaves for another, live bytes beside them.

const ROW = 30,
  ROW_WIDTH = 460;

function drawSchedule(graph) {
  const { entry } = graph.app,
    { world } = graph;
  graph.tree = entry.tree(true);
  graph.here = graph.tree.here;
  const sheet = svg('g', { class: 'order' }),
    edges = svg('g');
  sheet.append(edges);
  graph.orderElements = new Map();
  graph.orderPositions = new Map();
  graph.orderEdges = [];
  entry.kernels.forEach((kernel, k) => {
    const y = k * ROW,
      id = 'k:' + k;
    graph.orderPositions.set(id, { x: ROW_WIDTH / 2, y: y + 12, w: ROW_WIDTH, h: 24 });
    const element = svg(
      'g',
      {
        class: 'box ' + kernel.role.kind,
        transform: `translate(0,${y})`,
        tabindex: 0,
        role: 'button',
        'data-id': id,
        'data-box': graph.tree.byId.get(id).index,
        'aria-label': `kernel ${k}, ${kernel.words}`,
      },
      svg('rect', { width: ROW_WIDTH, height: 24, rx: 4 }),
      svg('text', { x: 8, y: 16, class: 'small' }, String(k)),
      svg('text', { x: 36, y: 16 }, clip(kernel.words, 54)),
      svg(
        'text',
        { x: ROW_WIDTH - 8, y: 16, 'text-anchor': 'end', class: 'small' },
        kernel.time ? time(kernel.time.seconds) : kernel.kind,
      ),
      svg('title', {}, `${kernel.name} (${kernel.kind}), ${count(kernel.flops)}FLOP`),
    );
    graph.orderElements.set(k, element);
    sheet.append(element);
  });
  for (const { from, to } of entry.flows) {
    const a = from * ROW + 12,
      b = to * ROW + 12,
      reach = ROW_WIDTH + 24 + 24 * Math.sqrt(to - from);
    const d = `M${ROW_WIDTH},${a} C${reach},${a} ${reach},${b} ${ROW_WIDTH + 2},${b}`;
    const path = svg('path', { class: 'edge', d, 'marker-end': 'url(#head)', 'stroke-opacity': 0.55 });
    path.append(svg('title', {}, missedText(entry, from, to)));
    edges.append(path);
    graph.orderEdges.push({ path, from, to });
  }
  const peak = Math.max(1, ...entry.live);
  entry.live.forEach((live, k) => {
    const w = (120 * live) / peak;
    sheet.append(
      svg(
        'rect',
        { x: -12 - w, y: k * ROW + 4, width: w, height: 16, rx: 2, class: 'leaf item' },
        svg('title', {}, `${bytes(live)} live`),
      ),
    );
  });
  sheet.append(svg('text', { x: -12, y: -12, 'text-anchor': 'end', class: 'small' }, 'live bytes'));
  world.querySelector('.order')?.remove();
  world.append(sheet);
  graph.extent = { x: -140, y: -30, w: ROW_WIDTH + 380, h: entry.kernels.length * ROW + 40 };
}

/** The kernels of what is chosen or found. */
function markSchedule(graph) {
  const chosen = kernelsOf(graph.app.entry, graph.app.chosen),
    found = new Set();
  for (const hit of graph.app.hits) for (const k of kernelsOf(graph.app.entry, hit.chosen)) found.add(k);
  graph.orderElements?.forEach((element, k) => {
    element.classList.toggle('chosen', chosen.has(k));
    element.classList.toggle('found', found.has(k));
  });
  for (const { path, from, to } of graph.orderEdges ?? [])
    path.classList.toggle('near', chosen.has(from) || chosen.has(to));
}

function revealInSchedule(graph, chosen) {
  const [k] = kernelsOf(graph.app.entry, chosen);
  if (k === undefined) return;
  const at = { x: 0, y: k * ROW, w: ROW_WIDTH, h: 24 },
    r = graph.region;
  if (at.y < r.y || at.y + at.h > r.y + r.h) graph.center(at);
}

/** The positions of the kernels that something chosen is computed in, read or written by. */
function kernelsOf(entry, chosen) {
  switch (chosen?.kind) {
    case 'kernel':
      return new Set([chosen.id]);
    case 'node':
      return new Set(entry.kernelsOf.get(chosen.id) ?? []);
    case 'buffer':
      return new Set(entry.buffers[chosen.id].writers.concat(entry.buffers[chosen.id].readers));
    case 'group':
      return new Set(entry.groupKernels(chosen.id).map(kernel => kernel.at));
    case 'line':
      return new Set(lineKernels(entry, chosen.id));
    default:
      return new Set();
  }
}
