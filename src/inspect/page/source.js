'use strict';
// The program with what each of its lines costs, and the ties between lines and all that is made of them.

const ROLE_ORDER = ['forward', 'gradient', 'optimiser'];

const PART_OF = 0.01; // of a kernel, below which it is not told to be a line's

// What a line is told to cost, where a kernel computes for several.
const SHARED =
  'A kernel takes one time. It is shared among the lines of its nodes by what each node does in it: the time of its ' +
  'FLOPs at the machine’s peak, and of the bytes that it loads and stores itself at the memory’s. So the lines, ' +
  'and what has no line, add up to all kernels. (Layers counts a kernel whole, for the layer that it is built around.)';

/** By line, what it costs; 0 is what has no line. Made once for an entry. */
function lineCosts(entry) {
  if (entry.lineCosts) return entry.lineCosts;
  const found = (entry.lineCosts = new Map());
  const none = () => ({ seconds: 0, ceiling: 0, flops: 0, bytes: 0 });
  const of = line => {
    let cost = found.get(line);
    if (!cost) {
      cost = {
        ...none(),
        peak: 0,
        roles: { forward: 0, gradient: 0, optimiser: 0 },
        kernels: new Map(),
        calls: new Map(),
      };
      found.set(line, cost);
    }
    return cost;
  };
  for (const kernel of entry.kernels) {
    for (const share of kernel.lines) {
      const cost = of(share.line),
        seconds = share.time * secondsOf(kernel);
      let call = cost.calls.get(share.call);
      if (!call) cost.calls.set(share.call, (call = { ...none(), role: share.role }));
      for (const sum of [cost, call]) {
        sum.seconds += seconds;
        // What a launch takes is no work of the line's.
        sum.ceiling += share.time * (kernel.ceiling - DATA.machine.launch_seconds);
        sum.flops += share.flops;
        sum.bytes += share.bytes;
      }
      cost.roles[share.role] += seconds;
      cost.kernels.set(kernel.at, (cost.kernels.get(kernel.at) ?? 0) + seconds);
    }
  }
  for (const { line, bytes: size } of entry.line_peak) of(line).peak = size;
  for (const cost of found.values()) cost.kernels = withoutTraces(cost.kernels, k => secondsOf(entry.kernels[k]));
  return found;
}

/** Parts without those that are hardly any of their whole; all where there are no others. */
function withoutTraces(parts, whole) {
  const kept = new Map([...parts].filter(([key, part]) => part >= PART_OF * whole(key)));
  return kept.size ? kept : parts;
}

/** The lines of something chosen, with how much of it each is, from 0 to 1. */
function linesOf(entry, chosen) {
  const found = new Map(),
    only = line => (line ? new Map([[line, 1]]) : found);
  switch (chosen?.kind) {
    case 'line':
      return only(chosen.id);
    case 'kernel':
      for (const { line, time: part } of entry.kernels[chosen.id].lines)
        if (line) found.set(line, (found.get(line) ?? 0) + part);
      return withoutTraces(found, () => 1);
    case 'buffer':
      return only(entry.buffers[chosen.id].line);
    case 'node': {
      const at = entry.stageWith(chosen.id, entry.last.index);
      return only(at < 0 ? 0 : entry.graphStages[at].node(chosen.id).line);
    }
    case 'group': {
      const wanted = entry.groups.findIndex(group => group.id === chosen.id);
      for (const node of entry.nodes) if (node.line && node.groups.includes(wanted)) found.set(node.line, 1);
      return found;
    }
    default:
      return found;
  }
}

/** The kernels that compute something of a line. */
function lineKernels(entry, line) {
  return [...(lineCosts(entry).get(line)?.kernels.keys() ?? [])];
}

/** The buffers whose values come from a line. */
function lineBuffers(entry, line) {
  entry.buffersByLine ??= entry.buffers.reduce((map, buffer) => {
    push(map, buffer.line, buffer.at);
    return map;
  }, new Map());
  return entry.buffersByLine.get(line) ?? [];
}

/** By line that ends in an opening bracket, the line that closes it; text in quotes and comments is passed over. */
function blocksOf(lines) {
  const blocks = new Map(),
    open = [];
  lines.forEach((text, i) => {
    const plain = text.replace(/"(?:[^"\\]|\\.)*"|\/\/.*$/g, '');
    for (const c of plain) {
      if ('([{'.includes(c)) open.push(i + 1);
      else if (')]}'.includes(c)) {
        const from = open.pop();
        if (from !== undefined && from < i + 1) blocks.set(from, i + 1);
      }
    }
  });
  return blocks;
}

/** By first line, the totals of blocks: not of one that holds just what the one around it does. */
function blockCosts(entry, lines) {
  if (entry.blockCosts) return entry.blockCosts;
  const costs = lineCosts(entry),
    found = (entry.blockCosts = new Map()),
    around = [];
  for (const [from, to] of [...blocksOf(lines)].sort((a, b) => a[0] - b[0])) {
    while (around.length && around[around.length - 1].to < from) around.pop();
    const total = { to, lines: 0, seconds: 0, flops: 0, peak: 0, kernels: new Set() };
    for (let line = from; line <= to; line++) {
      const cost = costs.get(line);
      if (!cost) continue;
      total.lines++;
      for (const what of ['seconds', 'flops', 'peak']) total[what] += cost[what];
      for (const k of cost.kernels.keys()) total.kernels.add(k);
    }
    const parent = around[around.length - 1];
    around.push(total);
    // A line that costs something itself has its own numbers.
    if (total.lines < 2 || parent?.lines === total.lines || costs.get(from)?.seconds) continue;
    found.set(from, total);
  }
  return found;
}

/** A line of RON, its strings, numbers, names of kinds and comments each in its style. */
function sourceText(text) {
  const parts = [],
    token = /("(?:[^"\\]|\\.)*")|(\/\/.*$)|(\b\d[\w.]*)|(\b[A-Z]\w*)/g;
  let at = 0;
  for (const found of text.matchAll(token)) {
    const kind = ['string', 'comment', 'number', 'kind'][found.slice(1).findIndex(Boolean)];
    parts.push(text.slice(at, found.index), html('span', { class: 'is-' + kind }, found[0]));
    at = found.index + found[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}

class SourceView {
  constructor(host, app) {
    Object.assign(this, { host, app, rows: new Map() });
    this.sheet = html('div', { class: 'source-sheet' });
    this.map = html('div', { class: 'source-map', title: 'Which lines cost: the whole program, from top to bottom' });
    host.append(this.sheet, this.map);
    this.map.addEventListener('click', event => this.go(event));
    host.addEventListener('click', event => this.clicked(event));
    host.addEventListener('keydown', event => {
      if (event.key === 'Enter') this.clicked(event);
    });
  }

  clicked(event) {
    const row = event.target.closest?.('[data-line]');
    if (!row || !getSelection().isCollapsed) return;
    const line = Number(row.dataset.line);
    this.app.choose(line ? { kind: 'line', id: line } : null, { stay: true });
  }

  draw() {
    const { entry, lines } = this.app,
      costs = lineCosts(entry),
      blocks = blockCosts(entry, lines);
    this.most = Math.max(Number.MIN_VALUE, ...[...costs.values()].map(cost => cost.seconds));
    this.rows = new Map();
    const body = html('div', { class: 'source-lines' }, this.columns());
    lines.forEach((text, i) => {
      const line = i + 1,
        cost = costs.get(line),
        block = blocks.get(line),
        hint = cost ? this.hint(line, cost) : block ? this.blockHint(line, block) : '';
      const row = html(
        'div',
        { class: 'source-line', 'data-line': line, ...(cost ? { tabindex: 0, role: 'button' } : {}) },
        html('span', { class: 'margin', title: hint }, ...(cost ? this.numbers(cost) : block ? this.sums(block) : [])),
        html('span', { class: 'number' }, String(line)),
        html('code', { style: `--indent:${/^ */.exec(text)[0].length}ch` }, ...sourceText(text)),
      );
      this.rows.set(line, row);
      body.append(row);
    });
    const first = !this.sheet.firstChild || this.drawn !== entry;
    this.drawn = entry;
    this.sheet.replaceChildren(this.head(), body, this.foot(costs));
    this.overview(costs);
    this.mark();
    // What comes before the first line that costs something is mostly names and sizes.
    const [top] = [...costs.keys()].filter(line => line && costs.get(line).seconds).sort((a, b) => a - b);
    if (first && top) this.sheet.scrollTop = this.rows.get(Math.max(1, top - 4)).offsetTop - 32;
  }

  /** All lines in the height of the window, each as wide as it costs. */
  overview(costs) {
    const { lines } = this.app,
      height = 100 / lines.length;
    this.marks = new Map();
    for (const [line, cost] of costs) {
      if (!line || !cost.seconds) continue;
      const role = ROLE_ORDER.reduce((a, b) => (cost.roles[b] > cost.roles[a] ? b : a));
      const place = `top:${(line - 1) * height}%;height:max(2px,${0.8 * height}%)`;
      const width = `width:max(2px,${(100 * cost.seconds) / this.most}%)`;
      this.marks.set(line, html('i', { class: 'part ' + role, style: `${place};${width}` }));
    }
    this.map.replaceChildren(...this.marks.values());
  }

  /** To the place of the program that is clicked in the overview. */
  go(event) {
    const { top, height } = this.map.getBoundingClientRect(),
      { lines } = this.app;
    const line = Math.floor(((event.clientY - top) / height) * lines.length) + 1;
    this.rows.get(Math.max(1, Math.min(lines.length, line)))?.scrollIntoView({ block: 'center' });
  }

  head() {
    const { entry } = this.app,
      { profile } = entry;
    const what = profile
      ? `Measured on ${profile.device}, the mean of a typical step of ${profile.steps}`
      : `Predicted: the least time that the ceilings of ${CEILINGS_OF} allow; nothing was measured`;
    return html(
      'p',
      { class: 'note row source-head' },
      ...ROLE_ORDER.map(role => html('span', { class: 'chip ' + role }, ROLE_WORDS[role])),
      html('span', {}, `${what}. `),
      html('span', { class: 'rule', title: SHARED, tabindex: 0 }, 'How a kernel is shared among lines'),
    );
  }

  columns() {
    const { profile } = this.app.entry;
    const titles = {
      time: profile ? 'measured time' : 'least time by the ceilings',
      'at peak': 'bytes in use at the peak whose values come from this line',
      FLOPs: 'floating-point operations',
      kernels: 'kernels of which a hundredth or more is this line’s',
    };
    return html(
      'div',
      { class: 'source-line columns' },
      html(
        'span',
        { class: 'margin' },
        html('span', { class: 'bar-of' }, profile ? 'measured' : 'predicted'),
        ...Object.entries(titles).map(([name, title]) =>
          html('span', { class: 'of-' + name.split(' ').pop(), title }, name),
        ),
      ),
      html('span', { class: 'number' }),
      html('span', {}, DATA.file),
    );
  }

  cells(what, size, flops, kernels) {
    const text = {
      time: what,
      peak: size ? bytes(size) : '',
      FLOPs: flops ? count(flops) : '',
      kernels: kernels || '',
    };
    return Object.entries(text).map(([name, value]) => html('span', { class: 'of-' + name }, String(value)));
  }

  bar({ roles }, whole) {
    const part = role => html('i', { class: 'part ' + role, style: `width:${(100 * roles[role]) / whole}%` });
    return html('span', { class: 'bar-of' }, ...ROLE_ORDER.filter(role => roles[role] > 0).map(part));
  }

  numbers(cost) {
    const { kernels } = cost;
    return [
      this.bar(cost, this.most),
      ...this.cells(cost.seconds ? time(cost.seconds) : '', cost.peak, cost.flops, kernels.size),
    ];
  }

  sums(block) {
    const cells = this.cells(`Σ ${time(block.seconds)}`, block.peak, block.flops, block.kernels.size);
    cells.forEach(cell => cell.classList.add('sum'));
    return [html('span', { class: 'bar-of' }), ...cells];
  }

  /** What is shown on hover. */
  hint(line, cost) {
    const { entry } = this.app,
      said = entry.profile ? 'measured' : 'at the least';
    const roles = ROLE_ORDER.filter(role => cost.roles[role]).map(
      role => `${ROLE_WORDS[role]} ${time(cost.roles[role])}`,
    );
    const calls = callsOf(entry, cost).map(({ name, seconds }) => `    ${time(seconds)}  ${name}`);
    return [
      `line ${line}: ${time(cost.seconds)} ${said}, ` +
        `${percent(cost.seconds / this.app.entry.kernelSeconds)} of all kernels`,
      entry.profile && cost.seconds ? `${percent(cost.ceiling / cost.seconds)} of the ceiling` : '',
      roles.join(', '),
      ...(calls.length > 12 ? [...calls.slice(0, 12), `    and ${calls.length - 12} more`] : calls),
      `${bytes(cost.peak)} at the peak, ${count(cost.flops)}FLOP, ${bytes(cost.bytes)} moved`,
      `kernels ${clip([...cost.kernels.keys()].join(', '), 70) || 'none'}`,
    ]
      .filter(Boolean)
      .join('\n');
  }

  blockHint(line, block) {
    return (
      `lines ${line} to ${block.to} together: ${time(block.seconds)}, ` +
      `${percent(block.seconds / this.app.entry.kernelSeconds)} of all ` +
      `kernels; ${bytes(block.peak)} at the peak, ${count(block.flops)}FLOP, ${many(block.kernels.size, 'kernel')}`
    );
  }

  /** What has no line, and what all come to. */
  foot(costs) {
    const { entry } = this.app,
      { profile } = entry,
      rest = costs.get(0);
    const row = (name, cells, more = {}) =>
      html(
        'div',
        { class: 'source-line', ...more },
        html('span', { class: 'margin' }, ...cells),
        html('span', { class: 'number' }),
        html('span', { class: 'total' }, name),
      );
    const all = { roles: { forward: 0, gradient: 0, optimiser: 0 }, seconds: 0, peak: 0, flops: 0 };
    for (const cost of costs.values()) {
      for (const what of ['seconds', 'peak', 'flops']) all[what] += cost[what];
      for (const role of ROLE_ORDER) all.roles[role] += cost.roles[role];
    }
    const plain = (what, size, flops, kernels) => [
      html('span', { class: 'bar-of' }),
      ...this.cells(what, size, flops, kernels),
    ];
    return html(
      'div',
      { class: 'source-lines source-foot' },
      ...(rest ? [row('what has no line', this.numbers(rest), { title: this.hint(0, rest) })] : []),
      row('all kernels', [
        this.bar(all, Math.max(Number.MIN_VALUE, all.seconds)),
        ...this.cells(time(all.seconds), all.peak, all.flops, entry.kernels.length),
      ]),
      ...(profile
        ? [
            row('between kernels', plain(time(profile.step.between_seconds))),
            row('the step', plain(time(profile.step.seconds))),
          ]
        : []),
    );
  }

  mark() {
    const { entry, chosen, hits } = this.app,
      lit = linesOf(entry, chosen),
      found = new Set(hits.flatMap(hit => (hit.chosen.kind === 'line' ? [hit.chosen.id] : [])));
    for (const [line, row] of this.rows) {
      row.classList.toggle('chosen', lit.has(line));
      row.classList.toggle('found', found.has(line));
      this.marks.get(line)?.classList.toggle('chosen', lit.has(line));
      if (lit.has(line)) row.style.setProperty('--lit', lit.get(line).toFixed(3));
    }
  }

  reveal(chosen) {
    this.bring(linesOf(this.app.entry, chosen));
  }

  /** Scrolls to the line that most of something is, where it is not in the window. */
  bring(lines) {
    let best = null;
    for (const [line, part] of lines) if (this.rows.has(line) && !(part <= lines.get(best))) best = line;
    const row = this.rows.get(best);
    if (!row) return;
    const at = row.getBoundingClientRect(),
      { top, bottom } = this.sheet.getBoundingClientRect();
    if (at.top < top + 60 || at.bottom > bottom - 10) row.scrollIntoView({ block: 'center' });
  }
}

/** The calls and updates that share a line, the slowest first. */
function callsOf(entry, cost) {
  const name = ([call, { role }]) =>
    (call === null ? ROLE_WORDS[role] : entry.groups[call].label) +
    (role === 'forward' && call !== null ? ', forward' : '');
  return [...cost.calls]
    .map(pair => ({ name: name(pair), group: pair[0], ...pair[1] }))
    .sort((a, b) => b.seconds - a.seconds);
}

// In the panel

/** What a line costs, and for whom. */
function lineSections(panel, line) {
  const { entry } = panel.app,
    cost = lineCosts(entry).get(line);
  if (!cost) return [html('p', { class: 'hint' }, 'Nothing that runs comes from this line.')];
  const whole = entry.kernelSeconds;
  const kernels = [...cost.kernels].sort((a, b) => b[1] - a[1]),
    calls = callsOf(entry, cost),
    roles = ROLE_ORDER.filter(role => cost.roles[role]).map(role => `${ROLE_WORDS[role]} ${time(cost.roles[role])}`);
  const chip = ({ role, name, group, seconds }) => {
    const what = group === null ? name : panel.app.link({ kind: 'group', id: entry.groups[group].id }, name);
    return html('span', {}, html('i', { class: 'dot swatch-' + role }), ' ', what, ` ${time(seconds)}`);
  };
  return [
    panel.table([
      [
        entry.profile ? 'measured' : 'at the ceilings',
        `${time(cost.seconds)}, ${percent(cost.seconds / whole)} of all kernels`,
      ],
      roles.length > 0 && ['', roles.join(', ')],
      entry.profile && cost.seconds > 0 && ['of ceiling', percent(cost.ceiling / cost.seconds)],
      ['at the peak', bytes(cost.peak)],
      ['FLOPs', count(cost.flops)],
      ['bytes moved', bytes(cost.bytes)],
    ]),
    html('p', { class: 'hint', title: SHARED }, 'Its share of the kernels that compute it.'),
    html('h3', {}, 'For'),
    panel.links(calls.map(chip), 12),
    html('h3', {}, 'Kernels with some of it'),
    panel.links(
      kernels.map(([k, seconds]) =>
        html(
          'span',
          {},
          panel.kernelLink(k),
          ` ${time(seconds)}, ${percent(seconds / Math.max(Number.MIN_VALUE, secondsOf(entry.kernels[k])))} of it`,
        ),
      ),
      20,
    ),
    html('h3', {}, 'Buffers with its values'),
    panel.links(
      lineBuffers(entry, line)
        .sort((a, b) => entry.buffers[b].bytes - entry.buffers[a].bytes)
        .map(b => panel.bufferLink(b, true)),
      20,
    ),
  ];
}

/** The lines that a kernel computes for. */
function kernelSections(panel, kernel) {
  const { app } = panel,
    lines = [...linesOf(app.entry, { kind: 'kernel', id: kernel.at })].sort((a, b) => b[1] - a[1]);
  return [
    html('h3', { title: SHARED }, 'For lines'),
    panel.links(
      lines.map(([line, part]) => html('span', {}, panel.lineLink(line), ` ${percent(part)}`)),
      12,
    ),
  ];
}
