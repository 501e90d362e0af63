'use strict';
// The panel at the side: all about what is chosen.

class Details {
  constructor(app) {
    this.app = app;
    this.panel = $('details');
  }

  draw() {
    const { chosen, entry } = this.app;
    const show = {
      node: id => this.node(id),
      kernel: id => this.kernel(entry.kernels[id]),
      buffer: id => this.buffer(entry.buffers[id]),
      group: id => this.group(id),
      line: id => this.line(id),
    };
    this.panel.replaceChildren(...(chosen ? show[chosen.kind](chosen.id) : this.overview()));
    this.panel.scrollTop = 0;
  }

  // Parts

  table(rows) {
    return html(
      'table',
      {},
      html(
        'tbody',
        {},
        ...rows.filter(Boolean).map(([name, value]) => html('tr', {}, html('td', {}, name), html('td', {}, value))),
      ),
    );
  }

  links(items, most = 60) {
    if (!items.length) return html('p', { class: 'hint' }, 'none');
    const list = html('ul', {}, ...items.slice(0, most).map(item => html('li', {}, item)));
    if (items.length > most) {
      const more = html(
        'button',
        {
          class: 'link',
          onclick: () => more.parentElement.replaceWith(...items.slice(most).map(item => html('li', {}, item))),
        },
        `and ${items.length - most} more`,
      );
      list.append(html('li', {}, more));
    }
    return list;
  }

  nodeLink(name) {
    const { entry } = this.app;
    return this.app.link({ kind: 'node', id: entry.names[name] }, entry.names[name]);
  }

  kernelLink(k) {
    const kernel = this.app.entry.kernels[k];
    return this.app.link({ kind: 'kernel', id: k }, `${k} ${kernel.words}`, kernel.name);
  }

  lineLink(line) {
    const { app } = this,
      text = app.lines[line - 1].trim();
    const go = () => {
      app.tab = 'source';
      app.choose({ kind: 'line', id: line });
    };
    return html('button', { class: 'link', title: text, onclick: go }, `${line} ${clip(text, 44)}`);
  }

  bufferLink(b, size) {
    const buffer = this.app.entry.buffers[b];
    return this.app.link({ kind: 'buffer', id: b }, buffer.name + (size ? ` · ${bytes(buffer.bytes)}` : ''));
  }

  /** Lines of the program with their numbers, without what all are indented by; `here` is marked. */
  sourceLines(from, to, here) {
    const { lines } = this.app,
      shown = [],
      parts = [];
    for (let line = Math.max(1, from); line <= Math.min(to, lines.length); line++) shown.push(line);
    const indent = Math.min(
      ...shown.filter(line => lines[line - 1].trim()).map(line => /^ */.exec(lines[line - 1])[0].length),
    );
    for (const line of shown) {
      const go = () => {
        this.app.tab = 'source';
        this.app.choose({ kind: 'line', id: line });
      };
      const number = html('i', { class: 'to-line', title: 'its cost', onclick: go }, String(line).padStart(4) + '  ');
      const text = [number, lines[line - 1].slice(indent)];
      parts.push(html('span', line === here ? { class: 'here' } : {}, ...text), '\n');
    }
    return parts;
  }

  // What can be chosen

  overview() {
    const { entry, stage } = this.app,
      kinds = new Map();
    entry.kernels.forEach(k => kinds.set(k.kind, (kinds.get(k.kind) ?? 0) + 1));
    const sum = of => entry.kernels.reduce((total, k) => total + of(k), 0);
    return [
      html('h2', {}, `${DATA.program} · ${entry.name}`),
      html('p', { class: 'hint' }, 'Choose a box, a buffer or a kernel to see where it comes from and where it ended.'),
      ...(this.app.tab === 'graph' && stage instanceof Stage ? changeSections(this.app, stage) : []),
      html('h3', {}, 'The whole'),
      this.table([
        ['nodes', `${entry.graphStages[0].nodes.length} declared, ${entry.last.nodes.length} optimised`],
        [
          'kernels',
          [entry.kernels.length || 'none', [...kinds].map(([kind, n]) => `${n} ${kind}`).join(', ')]
            .filter(Boolean)
            .join(': '),
        ],
        ['FLOPs', count(sum(k => k.flops))],
        ['bytes moved', bytes(sum(k => k.bytes))],
        ['arena', `${bytes(entry.arena)} (lower bound ${bytes(entry.lower_bound)})`],
        ['at the ceilings', time(sum(k => k.ceiling)) + (entry.profile ? '' : ` of ${CEILINGS_OF}`)],
        entry.profile && ['measured', `${time(entry.profile.step.seconds)} on ${entry.profile.device}`],
      ]),
      ...valuesOverview(this.app),
      ...checkSection(this.app),
      ...(this.app.tab === 'source'
        ? []
        : [html('h3', {}, 'Program'), html('pre', { class: 'source' }, ...this.sourceLines(1, this.app.lines.length))]),
    ];
  }

  node(name) {
    const { app } = this,
      { entry } = app,
      wanted = app.stage instanceof Stage ? Math.min(app.stage.index, entry.last.index) : entry.last.index;
    const at = entry.graphStages[wanted].node(name) ? wanted : entry.stageWith(name, wanted);
    const stage = at < 0 ? entry.baseStage : entry.graphStages[at],
      node = stage?.node(name);
    if (!node) return [html('p', {}, `${name} is not at any stage`)];
    const buffer = entry.bufferOf.get(name);
    const operand = index => (stage.byName.has(index) ? this.nodeLink(index) : entry.names[index]);
    const results = stage.results.filter(([, , n]) => n === node.name).map(([kind, of]) => `${kind} ${of}`);
    const layer = scopeWords(node.scope);
    const open = html(
      'button',
      {
        onclick: () => {
          app.setTab('graph');
          app.views.graph.openAround(app.chosen);
        },
      },
      'open around it',
    );
    return [
      html('h2', {}, name),
      html(
        'p',
        {},
        html('span', { class: 'chip ' + node.role.kind }, roleName(node.role)),
        layer ? ` ${layer}` : '',
        at === wanted ? '' : ` at stage ${stage.name}`,
        ' ',
        open,
      ),
      html('pre', { class: 'wrap' }, node.text.trim()),
      ...(app.tab === 'graph' ? changeOf(app, app.stage, name) : []),
      this.table([
        ['op', node.op],
        ['type', node.ty],
        ['FLOPs', count(node.flops)],
        ['bytes', bytes(node.bytes)],
        node.scope && ['in', node.scope],
        results.length && ['leaves as', results.join(', ')],
      ]),
      ...valueSection(entry, name),
      html('h3', {}, 'Declared at'),
      node.line
        ? html('pre', {}, ...this.sourceLines(node.line - 1, node.line + 1, node.line))
        : html('p', { class: 'hint' }, 'no line of its own: it is part of the state or inputs'),
      html('h3', {}, 'Operands'),
      this.links(node.operands.map(operand)),
      html('h3', {}, 'Users'),
      this.links((stage.users.get(node.name) ?? []).map(user => this.nodeLink(user.name))),
      html('h3', {}, 'Computed in kernel'),
      this.links((entry.kernelsOf.get(name) ?? []).map(k => this.kernelLink(k))),
      html('h3', {}, 'Held in buffer'),
      this.links(buffer === undefined ? [] : [this.bufferLink(buffer)]),
      html('h3', {}, 'History'),
      this.history(name),
    ];
  }

  /** In which stages a node came, changed and went. */
  history(name) {
    const { app } = this,
      index = app.entry.indexOf(name),
      items = [];
    let before = null;
    app.entry.graphStages.forEach((stage, s) => {
      const node = stage.byName.get(index);
      const verb =
        node && !before
          ? s === 0
            ? 'since'
            : 'added by'
          : !node && before
            ? 'removed by'
            : node && node !== before
              ? 'changed by'
              : null;
      if (verb) {
        const go = html(
          'button',
          {
            class: 'link',
            onclick: () => {
              app.setTab('graph');
              app.setStage(s);
            },
          },
          stage.name,
        );
        items.push(html('span', {}, html('span', { class: verb.split(' ')[0] }, verb), ' ', go));
        if (verb === 'changed by') items.push(html('code', {}, node.text.slice(node.text.indexOf(' = ') + 3)));
      }
      before = node;
    });
    return this.links(items);
  }

  /** A group with all that is in it. */
  group(id) {
    const { app } = this,
      { entry } = app,
      box = entry.tree(false).byId.get(id) ?? entry.tree(true).byId.get(id);
    const stage = app.stage instanceof Stage ? app.stage : entry.last,
      nodes = [];
    const wanted = entry.groups.findIndex(group => group.id === id);
    for (const node of stage.nodes) if (node.groups.includes(wanted)) nodes.push(node);
    const kernels = entry.groupKernels(id),
      sum = (list, of) => list.reduce((total, item) => total + of(item), 0),
      step = entry.profile?.step.seconds;
    const measured = step ? sum(kernels, k => k.time.seconds) : 0;
    const ops = new Map();
    nodes.forEach(node => ops.set(node.op, (ops.get(node.op) ?? 0) + 1));
    const most = [...ops]
      .sort((a, b) => b[1] - a[1])
      .slice(0, 8)
      .map(([op, n]) => `${n} ${op}`)
      .join(', ');
    // Other halves: the same layer forward, backward, and in other calls.
    const tail = id.split('/').slice(1).join('/');
    const others = tail ? entry.groups.filter(group => group.id !== id && group.id.endsWith('/' + tail)) : [];
    const graph = app.views.graph,
      toggled = graph.tree?.byId.get(id);
    const parts = [
      html('h2', {}, groupWords(box)),
      html(
        'p',
        {},
        html('span', { class: 'chip ' + box.role.kind }, roleName(box.role)),
        ' ',
        ...(toggled && app.tab === 'graph'
          ? [html('button', { onclick: () => graph.toggle(toggled) }, 'open or close')]
          : []),
      ),
      this.table([
        ['nodes', `${nodes.length} at ${stage.name}`],
        nodes.length && ['most', most],
        ['FLOPs', count(sum(nodes, n => n.flops))],
        ['bytes of results', bytes(sum(nodes, n => n.bytes))],
        ['kernels', `${kernels.length} of ${entry.kernels.length}`],
        kernels.length && ['bytes moved', bytes(sum(kernels, k => k.bytes))],
        kernels.length && ['at the ceiling', time(sum(kernels, k => k.ceiling))],
        step && kernels.length && ['measured', `${time(measured)}, ${percent(measured / step)} of the step`],
        step && kernels.length && ['of ceiling', percent(sum(kernels, k => k.ceiling) / measured)],
      ]),
    ];
    if (entry.values) {
      const result = resultOf(app, id);
      if (result)
        parts.push(html('p', {}, 'Its result: ', this.nodeLink(entry.indexOf(result))), ...valueSection(entry, result));
    }
    const lines = [...new Set(nodes.map(node => node.line).filter(Boolean))].sort((a, b) => a - b);
    if (lines.length && lines[lines.length - 1] - lines[0] < 12)
      parts.push(
        html('h3', {}, 'Declared at'),
        html('pre', {}, ...this.sourceLines(lines[0], lines[lines.length - 1], 0)),
      );
    parts.push(
      html('h3', {}, 'Kernels built around its nodes'),
      this.links(kernels.map(k => html('span', {}, this.kernelLink(k.at), k.time ? ` ${time(k.time.seconds)}` : ''))),
    );
    const inside = new Set(nodes.flatMap(node => entry.kernelsOf.get(entry.names[node.name]) ?? []));
    kernels.forEach(k => inside.delete(k.at));
    if (inside.size)
      parts.push(
        html('h3', {}, 'Other kernels with some of its nodes'),
        this.links(
          [...inside].sort((a, b) => a - b).map(k => this.kernelLink(k)),
          10,
        ),
      );
    if (others.length)
      parts.push(
        html('h3', {}, 'The same layer elsewhere'),
        this.links(
          others.map(group =>
            app.link(
              { kind: 'group', id: group.id },
              groupWords(entry.tree(false).byId.get(group.id) ?? { depth: 0, label: group.label }),
            ),
          ),
        ),
      );
    parts.push(
      html('h3', {}, 'Nodes'),
      this.links(
        nodes.map(node => this.nodeLink(node.name)),
        20,
      ),
    );
    return parts;
  }

  /** A line of the program with what was made of it. */
  line(line) {
    const { app } = this,
      { entry } = app,
      stage = app.stage instanceof Stage ? app.stage : entry.last;
    const nodes = stage.nodes.filter(node => node.line === line);
    return [
      html('h2', {}, `Line ${line}`),
      html('pre', {}, ...this.sourceLines(line - 3, line + 3, line)),
      ...lineSections(this, line),
      html('h3', {}, `Nodes at ${stage.name}`),
      this.links(
        nodes.map(node => this.nodeLink(node.name)),
        20,
      ),
    ];
  }

  kernel(kernel) {
    const { entry } = this.app,
      t = kernel.time;
    return [
      html('h2', { title: kernel.name }, `${kernel.at} ${kernel.words}`),
      html(
        'p',
        {},
        html('span', { class: 'chip ' + kernel.role.kind }, roleName(kernel.role)),
        ` ${kernel.kind}, ${kernel.at + 1} of ${entry.kernels.length}`,
      ),
      html('p', { class: 'hint' }, html('code', {}, kernel.name)),
      this.table([
        t && ['of ceiling', percent(t.of_ceiling)],
        t && ['measured', `${time(t.seconds)}, ${percent(t.share)} of the step`],
        ['at the ceiling', time(kernel.ceiling)],
        t && ['min, median, max', [t.min_seconds, t.median_seconds, t.max_seconds].map(time).join(', ')],
        t && [
          'rates',
          `${(kernel.flops / t.seconds / 1e9).toFixed(1)} GFLOP/s, ${(kernel.bytes / t.seconds / 1e9).toFixed(1)} GB/s`,
        ],
        ['FLOPs', count(kernel.flops)],
        ['bytes', bytes(kernel.bytes)],
        ['intensity', kernel.intensity.toFixed(2) + ' FLOP/byte'],
        ['values', String(kernel.values)],
      ]),
      ...kernelSections(this, kernel),
      html('h3', {}, 'Body'),
      html('pre', {}, kernel.body),
      ...(kernel.cuda ? [html('details', {}, html('summary', {}, 'CUDA C++'), html('pre', {}, kernel.cuda))] : []),
      html('h3', {}, 'Reads'),
      this.links(kernel.reads.map(b => this.bufferLink(b, true))),
      html('h3', {}, 'Writes'),
      this.links(kernel.writes.map(b => this.bufferLink(b, true))),
      ...(kernel.in_place.length
        ? [
            html('h3', {}, 'In place'),
            this.links(
              kernel.in_place.map(([result, old]) =>
                html('span', {}, this.bufferLink(result), ' is written over ', this.bufferLink(old)),
              ),
            ),
          ]
        : []),
      ...missedSection(
        this,
        entry.missed.pairs.filter(pair => isOfPair(pair, this.app.chosen)),
      ),
      html('h3', {}, 'Computes'),
      this.links(kernel.nodes.map(n => this.nodeLink(n))),
    ];
  }

  buffer(buffer) {
    const { entry } = this.app,
      over = buffer.over,
      under = buffer.under;
    return [
      html('h2', {}, buffer.name),
      html('p', {}, buffer.role + ' buffer'),
      this.table([
        ['type', buffer.ty],
        ['bytes', `${bytes(buffer.bytes)} (${buffer.bytes})`],
        ['offset', String(buffer.offset)],
        [
          'live',
          buffer.role === 'state'
            ? 'from run to run'
            : `from kernel ${buffer.live[0]} to ${Math.max(buffer.live[0], buffer.live[1] - 1)}`,
        ],
        buffer.line > 0 && ['declared at', this.lineLink(buffer.line)],
      ]),
      ...(over.length + under.length
        ? [
            html('h3', {}, 'In place'),
            this.links([
              ...over.map(({ kernel: k, buffer: old }) =>
                html('span', {}, 'over ', this.bufferLink(old), ', by kernel ', this.kernelLink(k)),
              ),
              ...under.map(({ kernel: k, buffer: result }) =>
                html('span', {}, 'overwritten by ', this.bufferLink(result), ', in kernel ', this.kernelLink(k)),
              ),
            ]),
          ]
        : []),
      ...valueSection(entry, entry.valueOfBuffer(buffer.at)),
      html('h3', {}, 'Written by'),
      this.links(buffer.writers.map(k => this.kernelLink(k))),
      html('h3', {}, 'Read by'),
      this.links(buffer.readers.map(k => this.kernelLink(k))),
      ...missedSection(
        this,
        entry.missed.pairs.filter(pair => isOfPair(pair, this.app.chosen)),
      ),
      html('h3', {}, 'Holds'),
      this.links(buffer.nodes.map(n => this.nodeLink(n))),
    ];
  }
}

/** The edge between the views and the panel, which is dragged or moved by arrow keys. */
class Splitter {
  constructor() {
    const edge = $('splitter'),
      main = document.querySelector('main');
    const isBeneath = () => matchMedia('(max-width: 900px)').matches;
    const set = (size, keep) => {
      const { width, height } = main.getBoundingClientRect(),
        beneath = isBeneath(),
        whole = beneath ? height : width;
      const part = Math.min(0.75 * whole, Math.max(beneath ? 90 : 220, size));
      main.style.setProperty(beneath ? '--panel-height' : '--panel-width', `${Math.round(part)}px`);
      if (keep) store(beneath ? 'gcc-gan-panel-height' : 'gcc-gan-panel-width', String(Math.round(part)));
    };
    for (const kind of ['width', 'height']) {
      const kept = Number(stored('gcc-gan-panel-' + kind));
      if (kept) main.style.setProperty('--panel-' + kind, kept + 'px');
    }
    const size = () => $('details').getBoundingClientRect()[isBeneath() ? 'height' : 'width'];
    edge.addEventListener('pointerdown', event => {
      edge.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    edge.addEventListener('pointermove', event => {
      if (!edge.hasPointerCapture(event.pointerId)) return;
      const box = main.getBoundingClientRect();
      set(isBeneath() ? box.bottom - event.clientY : box.right - event.clientX, true);
    });
    edge.addEventListener('keydown', event => {
      const by = { ArrowLeft: 24, ArrowUp: 24, ArrowRight: -24, ArrowDown: -24 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      set(size() + by, true);
    });
  }
}

/** What the browser keeps from visit to visit; a page from a file may have no storage. */
function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    /* then it is not kept */
  }
}
