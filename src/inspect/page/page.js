'use strict';
// The page: what is shown, what is chosen, keys, search and details.

const $ = id => document.getElementById(id);

class App {
  constructor() {
    this.entries = DATA.entries.map(entry => new Entry(entry));
    this.entry = this.entries[DATA.main];
    this.chosen = null;
    this.tab = 'graph';
    this.views = {
      graph: new GraphView($('graph'), this),
      memory: new MemoryView($('memory'), this),
      kernels: new KernelsView($('kernels'), this),
      timeline: new TimelineView($('timeline'), this),
    };
    this.stale = new Set(Object.keys(this.views));
    this.lines = DATA.source.split('\n');
    $('program').append(DATA.program, html('small', {}, DATA.file + DATA.sets.map(s => '  ' + s).join('')));
    this.entries.forEach((entry, i) => $('entry').append(html('option', { value: i }, `${entry.name} (${entry.kernels.length} kernels)`)));
    this.listen();
    this.restore();
  }

  get stage() { return this.entry.stages[this.stageIndex]; }

  listen() {
    $('entry').addEventListener('change', () => this.setEntry(Number($('entry').value)));
    $('stage').addEventListener('input', () => this.setStage(Number($('stage').value)));
    $('before').addEventListener('click', () => this.setStage(this.stageIndex - 1));
    $('after').addEventListener('click', () => this.setStage(this.stageIndex + 1));
    for (const name of Object.keys(this.views)) $('tab-' + name).addEventListener('click', () => this.setTab(name));
    $('levels').addEventListener('click', event => { if (event.target.dataset.level) this.setLevel(Number(event.target.dataset.level)); });
    $('theme').addEventListener('click', () => this.setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'));
    $('help').addEventListener('click', () => $('keys').showModal());
    document.addEventListener('keydown', event => this.key(event));
    window.addEventListener('hashchange', () => { if (location.hash !== this.hash) this.restore(); });
    window.addEventListener('resize', () => {
      clearTimeout(this.resizing);
      this.resizing = setTimeout(() => {
        for (const name of ['memory', 'kernels', 'timeline']) this.stale.add(name);
        if (this.tab !== 'graph') this.refresh();
      }, 150);
    });
    new Search(this);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $('keys').open) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !(event.target.id === 'stage' && !event.key.startsWith('Arrow'))) return;
    const graph = this.views.graph;
    const acts = {
      '/': () => $('search').focus(),
      '?': () => $('keys').showModal(),
      t: () => $('theme').click(),
      g: () => this.setTab('graph'), m: () => this.setTab('memory'), k: () => this.setTab('kernels'), l: () => this.setTab('timeline'),
      1: () => this.setLevel(0), 2: () => this.setLevel(1), 3: () => this.setLevel(2), 4: () => { if (!(this.stage instanceof Stage)) this.setLevel(ORDER); },
      '+': () => graph.zoomBy(1.3), '=': () => graph.zoomBy(1.3), '-': () => graph.zoomBy(1 / 1.3), 0: () => graph.fit(true),
      ArrowLeft: () => this.setStage(this.stageIndex - 1), ArrowRight: () => this.setStage(this.stageIndex + 1),
      Escape: () => this.choose(null),
    };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  }

  // What is shown

  setEntry(index) {
    this.entry = this.entries[index];
    this.stageIndex = Math.min(this.stageIndex, this.entry.stages.length - 1);
    this.chosen = null;
    this.views.graph.toggled.clear();
    this.changed(true);
  }

  setStage(index) {
    index = Math.max(0, Math.min(this.entry.stages.length - 1, index));
    if (index === this.stageIndex) return;
    const special = i => !(this.entry.stages[i] instanceof Stage);
    const refit = special(index) || special(this.stageIndex);
    this.stageIndex = index;
    this.stale.add('graph');
    this.refresh();
    if (refit) this.views.graph.fit();
    if (this.chosen && this.tab === 'graph') this.views.graph.reveal(this.chosen);
    this.details();
    this.remember();
  }

  setTab(name) {
    this.tab = name;
    this.refresh();
    this.views[name].reveal?.(this.chosen);
    this.remember();
  }

  setLevel(level) {
    this.setTab('graph');
    this.views.graph.setLevel(level);
    this.refresh();
    this.remember();
  }

  setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem('gcc-gan-theme', theme); } catch { /* a page from a file may have no storage */ }
  }

  changed(refit) {
    for (const name of Object.keys(this.views)) this.stale.add(name);
    this.refresh();
    if (refit) this.views.graph.fit();
    this.details();
    this.remember();
  }

  refresh() {
    const stage = this.stage;
    $('entry').value = this.entries.indexOf(this.entry);
    $('stage').max = this.entry.stages.length - 1;
    $('stage').value = this.stageIndex;
    $('stage').setAttribute('aria-valuetext', stage.name);
    $('ticks').replaceChildren(...this.entry.stages.map((_, i) => html('option', { value: i })));
    $('before').disabled = this.stageIndex === 0;
    $('after').disabled = this.stageIndex === this.entry.stages.length - 1;
    $('stage-name').textContent = `${this.stageIndex + 1}/${this.entry.stages.length} ${stage.name}`;
    const size = stage instanceof Stage ? `${stage.nodes.length} nodes.` : `${this.entry.kernels.length} kernels.`;
    $('stage-about').textContent = `${stage.about} ${size}`;
    const changes = stage.changes;
    $('stage-changes').replaceChildren(...(changes ? [['added', '+'], ['removed', '−'], ['changed', '~']].flatMap(([kind, sign]) => [html('span', { class: kind }, `${sign}${changes[kind].size} ${kind}`), ' ']) : []));
    for (const name of Object.keys(this.views)) {
      $(name).hidden = name !== this.tab;
      $('tab-' + name).setAttribute('aria-selected', name === this.tab);
      $('tab-' + name).tabIndex = name === this.tab ? 0 : -1;
    }
    $('levels').style.visibility = this.tab === 'graph' ? 'visible' : 'hidden';
    $('in-order').hidden = stage instanceof Stage;
    $('one-box').textContent = stage instanceof Stage ? 'layers' : 'kernels';
    for (const button of $('levels').children) button.setAttribute('aria-pressed', Number(button.dataset.level) === this.views.graph.level);
    if (this.stale.delete(this.tab)) {
      this.views[this.tab].draw();
      if (this.tab === 'graph' && this.views.graph.unseen !== false) this.views.graph.fit();
    }
  }

  // What is chosen: { kind: 'node' | 'kernel' | 'buffer', id }, a node by its name

  choose(chosen, { stay = false } = {}) {
    this.chosen = chosen;
    if (chosen && !stay) {
      if (chosen.kind === 'node') {
        const found = this.entry.stageWith(chosen.id, this.stage instanceof Stage ? this.stage.index : this.entry.last.index);
        const shown = this.stage instanceof Stage ? this.stage.node(chosen.id) : this.entry.kernelsOf.has(chosen.id);
        if (!shown && found >= 0) this.stageIndex = found;
        this.tab = 'graph';
        this.stale.add('graph');
      }
      if (chosen.kind === 'kernel' && this.tab === 'memory') this.tab = 'kernels';
      if (chosen.kind === 'buffer') this.tab = 'memory';
    }
    this.refresh();
    if (chosen && !stay) this.views[this.tab].reveal?.(chosen);
    for (const view of Object.values(this.views)) if (!this.stale.has(Object.keys(this.views).find(n => this.views[n] === view))) view.mark();
    this.details();
    this.remember();
  }

  link(chosen, text) {
    return html('button', { class: 'link', onclick: () => this.choose(chosen) }, text);
  }

  links(items) {
    return items.length ? html('ul', {}, ...items.map(item => html('li', {}, item))) : html('p', { class: 'hint' }, 'none');
  }

  details() {
    const panel = $('details'), { chosen, entry } = this;
    const show = { node: id => this.nodeDetails(id), kernel: id => this.kernelDetails(entry.kernels[id]), buffer: id => this.bufferDetails(entry.buffers[id]) };
    panel.replaceChildren(...(chosen ? show[chosen.kind](chosen.id) : this.overview()));
    panel.scrollTop = 0;
  }

  table(rows) {
    return html('table', {}, html('tbody', {}, ...rows.filter(Boolean).map(([name, value]) => html('tr', {}, html('td', {}, name), html('td', {}, value)))));
  }

  overview() {
    const { entry } = this, kinds = new Map();
    entry.kernels.forEach(k => kinds.set(k.kind, (kinds.get(k.kind) ?? 0) + 1));
    const sum = of => entry.kernels.reduce((total, k) => total + of(k), 0);
    return [
      html('h2', {}, `${DATA.program} · ${entry.name}`),
      html('p', { class: 'hint' }, 'Choose a box, a buffer or a kernel to see where it comes from and where it ended.'),
      this.table([
        ['nodes', `${entry.graphStages[0].nodes.length} declared, ${entry.last.nodes.length} optimised`],
        ['kernels', `${entry.kernels.length}: ${[...kinds].map(([kind, n]) => `${n} ${kind}`).join(', ')}`],
        ['FLOPs', count(sum(k => k.flops))],
        ['bytes moved', bytes(sum(k => k.bytes))],
        ['arena', `${bytes(entry.arena)} (lower bound ${bytes(entry.lower_bound)})`],
        ['at the ceilings', time(sum(k => k.ceiling)) + (entry.profile ? '' : ' on a nominal machine')],
        entry.profile && ['measured', `${time(entry.profile.step.seconds)} on ${entry.profile.device}`],
      ]),
      html('h3', {}, 'Program'), html('pre', {}, ...this.sourceLines(1, this.lines.length)),
    ];
  }

  /** Lines of the program with their numbers; `here` is marked. */
  sourceLines(from, to, here) {
    const parts = [];
    for (let line = Math.max(1, from); line <= Math.min(to, this.lines.length); line++) {
      const text = [html('i', {}, String(line).padStart(4) + '  '), this.lines[line - 1]];
      parts.push(line === here ? html('span', { class: 'here' }, ...text) : html('span', {}, ...text), '\n');
    }
    return parts;
  }

  nodeDetails(name) {
    const { entry } = this, wanted = this.stage instanceof Stage ? this.stage.index : entry.last.index;
    const at = entry.graphStages[wanted].node(name) ? wanted : entry.stageWith(name, wanted);
    if (at < 0) return [html('p', {}, `${name} is not at any stage`)];
    const stage = entry.graphStages[at], node = stage.node(name);
    const nodeLink = other => this.link({ kind: 'node', id: entry.names[other.name] }, entry.names[other.name]);
    const operand = index => (stage.byName.has(index) ? nodeLink(stage.byName.get(index)) : entry.names[index]);
    const kernels = (entry.kernelsOf.get(name) ?? []).map(k => this.link({ kind: 'kernel', id: k }, `${k} ${entry.kernels[k].name}`));
    const buffer = entry.bufferOf.get(name);
    const results = stage.results.filter(([, , n]) => n === node.name).map(([kind, of]) => `${kind} ${of}`);
    return [
      html('h2', {}, name), html('p', {}, html('span', { class: 'chip ' + node.role.kind }, roleName(node.role)), at === wanted ? '' : ` at stage ${stage.name}`),
      html('pre', { class: 'wrap' }, node.text),
      this.table([
        ['op', node.op], ['type', node.ty], ['FLOPs', count(node.flops)], ['bytes', bytes(node.bytes)],
        node.scope && ['in', node.scope], results.length && ['leaves as', results.join(', ')],
      ]),
      html('h3', {}, 'Declared at'),
      node.line ? html('pre', {}, ...this.sourceLines(node.line - 1, node.line + 1, node.line)) : html('p', { class: 'hint' }, 'no line of its own: it is part of the state or inputs'),
      html('h3', {}, 'Operands'), this.links(node.operands.map(operand)),
      html('h3', {}, 'Users'), this.links((stage.users.get(node.name) ?? []).map(nodeLink)),
      html('h3', {}, 'Computed in kernel'), this.links(kernels),
      html('h3', {}, 'Held in buffer'), this.links(buffer === undefined ? [] : [this.link({ kind: 'buffer', id: buffer }, entry.buffers[buffer].name)]),
      html('h3', {}, 'History'), this.history(name),
    ];
  }

  /** In which stages a node came, changed and went. */
  history(name) {
    const { entry } = this, items = [];
    let before = null;
    entry.graphStages.forEach((stage, s) => {
      const node = stage.node(name);
      const verb = node && !before ? (s === 0 ? 'since' : 'added by') : !node && before ? 'removed by' : node && node !== before ? 'changed by' : null;
      if (verb) {
        const go = html('button', { class: 'link', onclick: () => { this.setTab('graph'); this.setStage(s); } }, stage.name);
        items.push(html('span', {}, html('span', { class: verb.split(' ')[0] }, verb), ' ', go));
        if (verb === 'changed by') items.push(html('code', {}, node.text.slice(node.text.indexOf(' = ') + 3)));
      }
      before = node;
    });
    return this.links(items);
  }

  kernelDetails(kernel) {
    const { entry } = this;
    const buffer = b => this.link({ kind: 'buffer', id: b }, `${entry.buffers[b].name} · ${bytes(entry.buffers[b].bytes)}`);
    const node = n => this.link({ kind: 'node', id: entry.names[n] }, entry.names[n]);
    return [
      html('h2', {}, kernel.name),
      html('p', {}, html('span', { class: 'chip ' + kernel.role.kind }, roleName(kernel.role)), ` ${kernel.kind}, ${kernel.at + 1} of ${entry.kernels.length}`),
      this.table([
        ['FLOPs', count(kernel.flops)], ['bytes', bytes(kernel.bytes)], ['intensity', kernel.intensity.toFixed(2) + ' FLOP/byte'], ['at the ceiling', time(kernel.ceiling)],
        ['values', String(kernel.values)],
        kernel.time && ['measured', `${time(kernel.time.seconds)}, ${(100 * kernel.time.share).toFixed(1)} % of the step`],
        kernel.time && ['min, median, max', [kernel.time.min_seconds, kernel.time.median_seconds, kernel.time.max_seconds].map(time).join(', ')],
        kernel.time && ['rates', `${(kernel.flops / kernel.time.seconds / 1e9).toFixed(1)} GFLOP/s, ${(kernel.bytes / kernel.time.seconds / 1e9).toFixed(1)} GB/s`],
        kernel.time && ['of ceiling', (100 * kernel.time.of_ceiling).toFixed(0) + ' %'],
      ]),
      html('h3', {}, 'Body'), html('pre', {}, kernel.body),
      ...(kernel.cuda ? [html('details', {}, html('summary', {}, 'CUDA C++'), html('pre', {}, kernel.cuda))] : []),
      html('h3', {}, 'Reads'), this.links(kernel.reads.map(buffer)),
      html('h3', {}, 'Writes'), this.links(kernel.writes.map(buffer)),
      ...(kernel.in_place.length ? [html('h3', {}, 'In place'), this.links(kernel.in_place.map(([result, old]) => html('span', {}, buffer(result), ' is written over ', buffer(old))))] : []),
      html('h3', {}, 'Computes'), this.links(kernel.nodes.map(node)),
    ];
  }

  bufferDetails(buffer) {
    const { entry } = this;
    const kernel = k => this.link({ kind: 'kernel', id: k }, `${k} ${entry.kernels[k].name}`);
    const link = b => this.link({ kind: 'buffer', id: b }, entry.buffers[b].name);
    return [
      html('h2', {}, buffer.name), html('p', {}, buffer.role + ' buffer'),
      this.table([
        ['type', buffer.ty], ['bytes', `${bytes(buffer.bytes)} (${buffer.bytes})`], ['offset', String(buffer.offset)],
        ['live', buffer.role === 'state' ? 'from run to run' : `from kernel ${buffer.live[0]} to ${Math.max(buffer.live[0], buffer.live[1] - 1)}`],
      ]),
      ...(buffer.over.length + buffer.under.length ? [html('h3', {}, 'In place'), this.links([
        ...buffer.over.map(({ kernel: k, buffer: old }) => html('span', {}, 'over ', link(old), ', by kernel ', kernel(k))),
        ...buffer.under.map(({ kernel: k, buffer: result }) => html('span', {}, 'overwritten by ', link(result), ', in kernel ', kernel(k))),
      ])] : []),
      html('h3', {}, 'Written by'), this.links(buffer.writers.map(kernel)),
      html('h3', {}, 'Read by'), this.links(buffer.readers.map(kernel)),
      html('h3', {}, 'Holds'), this.links(buffer.nodes.map(n => this.link({ kind: 'node', id: entry.names[n] }, entry.names[n]))),
    ];
  }

  // The address: what is shown can be linked to

  remember() {
    const parts = { entry: this.entry.name, stage: this.stage.name, tab: this.tab, level: this.views.graph.level };
    if (this.chosen) Object.assign(parts, { [this.chosen.kind]: this.chosen.id });
    this.hash = '#' + new URLSearchParams(parts);
    try { history.replaceState(null, '', this.hash); } catch { /* not everywhere allowed */ }
  }

  restore() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    let theme = wanted.get('theme');
    try { theme ??= localStorage.getItem('gcc-gan-theme'); } catch { /* no storage */ }
    document.documentElement.dataset.theme = theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
    this.entry = this.entries.find(e => e.name === wanted.get('entry')) ?? this.entries[DATA.main];
    this.stageIndex = Math.max(0, this.entry.stages.findIndex(s => s.name === wanted.get('stage')));
    if (this.views[wanted.get('tab')]) this.tab = wanted.get('tab');
    if (/^[0123]$/.test(wanted.get('level') ?? '')) this.views.graph.level = Number(wanted.get('level'));
    const valid = { node: id => (this.entry.stageWith(id, 0) >= 0 ? id : null), kernel: id => (this.entry.kernels[id] ? Number(id) : null), buffer: id => (this.entry.buffers[id] ? Number(id) : null) };
    this.chosen = null;
    for (const [kind, check] of Object.entries(valid)) {
      const id = wanted.has(kind) ? check(wanted.get(kind)) : null;
      if (id !== null) this.chosen = { kind, id };
    }
    this.changed(true);
    if (this.chosen) this.views[this.tab].reveal?.(this.chosen);
  }
}

/** A box to type in, with what was found beneath. */
class Search {
  constructor(app) {
    this.app = app;
    this.at = 0;
    const input = $('search'), list = $('found');
    input.addEventListener('input', () => this.find(input.value));
    input.addEventListener('focus', () => this.find(input.value));
    input.addEventListener('blur', () => setTimeout(() => this.close(), 150));
    input.addEventListener('keydown', event => {
      if (event.key === 'Escape') { input.value = ''; this.close(); input.blur(); }
      if (event.key === 'Enter') this.take(this.at);
      if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
        event.preventDefault();
        this.at = Math.max(0, Math.min(this.hits.length - 1, this.at + (event.key === 'ArrowDown' ? 1 : -1)));
        this.paint();
      }
    });
    list.addEventListener('pointerdown', event => {
      const item = event.target.closest('li[data-at]');
      if (item) { event.preventDefault(); this.take(Number(item.dataset.at)); }
    });
    this.hits = [];
  }

  find(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean), { entry } = this.app;
    this.hits = [];
    this.at = 0;
    if (!words.length) return this.close();
    const has = hay => words.every(word => hay.toLowerCase().includes(word));
    const stage = this.app.stage instanceof Stage ? this.app.stage : entry.last;
    for (const node of stage.nodes) {
      const name = entry.names[node.name];
      if (has(name + ' ' + node.op)) this.hits.push({ chosen: { kind: 'node', id: name }, name, about: node.op, rank: name.length });
    }
    entry.kernels.forEach((kernel, k) => { if (has(kernel.name + ' kernel ' + kernel.kind)) this.hits.push({ chosen: { kind: 'kernel', id: k }, name: kernel.name, about: 'kernel ' + k, rank: kernel.name.length }); });
    entry.buffers.forEach((buffer, b) => { if (has(buffer.name + ' buffer')) this.hits.push({ chosen: { kind: 'buffer', id: b }, name: buffer.name, about: 'buffer, ' + bytes(buffer.bytes), rank: buffer.name.length + 500 }); });
    this.total = this.hits.length;
    this.hits = this.hits.sort((a, b) => a.rank - b.rank).slice(0, 60);
    this.paint();
  }

  paint() {
    const list = $('found');
    list.hidden = false;
    $('search').setAttribute('aria-expanded', 'true');
    list.replaceChildren(...this.hits.map((hit, i) => html('li', { role: 'option', 'data-at': i, 'aria-selected': i === this.at }, html('span', {}, hit.name), html('small', {}, hit.about))));
    if (!this.hits.length) list.append(html('li', {}, 'nothing of that name at this stage'));
    else if (this.total > this.hits.length) list.append(html('li', {}, html('small', {}, `and ${this.total - this.hits.length} more`)));
    list.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }

  close() {
    $('found').hidden = true;
    $('search').setAttribute('aria-expanded', 'false');
  }

  take(at) {
    const hit = this.hits[at];
    if (!hit) return;
    this.close();
    $('search').blur();
    if (hit.chosen.kind === 'kernel' && this.app.tab !== 'graph' && this.app.tab !== 'timeline') this.app.tab = 'kernels';
    this.app.choose(hit.chosen);
  }
}

const app = new App();
document.documentElement.dataset.ready = 'yes';
