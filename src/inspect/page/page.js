'use strict';
// The page: what is shown, what is chosen, and keys.

class App {
  constructor() {
    this.entries = DATA.entries.map(entry => new Entry(entry));
    this.entry = this.entries[DATA.main];
    this.chosen = null;
    this.hits = []; // what a search found, marked in every view
    this.tab = 'graph';
    this.lines = DATA.source.split('\n');
    this.views = {
      graph: new GraphView($('graph'), this),
      memory: new MemoryView($('memory'), this),
      kernels: new KernelsView($('kernels'), this),
      layers: new LayersView($('layers'), this),
      missed: new MissedView($('missed'), this),
      timeline: new TimelineView($('timeline'), this),
      source: new SourceView($('source'), this),
      ...(DATA.against ? { against: new AgainstView($('against'), this) } : {}),
    };
    $('tab-against').hidden = !DATA.against;
    this.stale = new Set(Object.keys(this.views));
    this.strip = new StageStrip(this);
    this.panel = new Details(this);
    this.playHead = new PlayHead(this);
    this.splitter = new Splitter();
    this.hover = new ValueHover(this);
    $('program').append(DATA.program, html('small', {}, DATA.file + DATA.sets.map(s => '  ' + s).join('')));
    this.entries.forEach((entry, i) =>
      $('entry').append(html('option', { value: i }, `${entry.name} (${many(entry.kernels.length, 'kernel')})`)),
    );
    this.search = new Search(this);
    this.listen();
    this.restore();
  }

  get stage() {
    return this.entry.stages[this.stageIndex];
  }

  get view() {
    return this.views[this.tab];
  }

  /** Whether what is to be shown is about kernels, or nodes, and there are none. */
  get isIdle() {
    const { entry, tab } = this;
    if (entry.kernels.length || tab === 'source' || tab === 'against') return false;
    return tab !== 'graph' || !(this.stage instanceof Stage) || !this.stage.nodes.length;
  }

  listen() {
    $('entry').addEventListener('change', () => this.setEntry(Number($('entry').value)));
    $('before').addEventListener('click', () => this.step(-1));
    $('after').addEventListener('click', () => this.step(1));
    for (const name of Object.keys(this.views)) $('tab-' + name).addEventListener('click', () => this.setTab(name));
    $('levels').addEventListener('click', event => {
      if (event.target.dataset.level) this.setLevel(Number(event.target.dataset.level));
    });
    $('theme').addEventListener('click', () =>
      this.setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'),
    );
    $('help').addEventListener('click', () => $('keys').showModal());
    document.addEventListener('keydown', event => this.key(event));
    window.addEventListener('hashchange', () => {
      if (location.hash !== this.hash) this.restore();
    });
    new ResizeObserver(() => {
      clearTimeout(this.resizing);
      this.resizing = setTimeout(() => {
        for (const name of Object.keys(this.views).filter(view => view !== 'graph')) this.stale.add(name);
        if (this.tab !== 'graph') this.refresh();
      }, 100);
    }).observe($('views'));
  }

  key(event) {
    // Some keyboards have brackets and the backslash on a third level.
    const isCommand = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState('AltGraph');
    if (isCommand || $('keys').open) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const { view } = this,
      isGraph = this.tab === 'graph',
      pan = (x, y) => view.panBy?.(60 * x, 60 * y),
      along = by => (isGraph ? this.step(by) : event.shiftKey ? pan(by, 0) : this.playHead.step(by));
    const acts = {
      '/': () => $('search').focus(),
      '?': () => $('keys').showModal(),
      t: () => $('theme').click(),
      g: () => this.setTab('graph'),
      m: () => this.setTab('memory'),
      k: () => this.setTab('kernels'),
      l: () => this.setTab('timeline'),
      y: () => this.setTab('layers'),
      f: () => this.setTab('missed'),
      s: () => this.setTab('source'),
      a: () => this.views.against && this.setTab('against'),
      1: () => this.setLevel(0),
      2: () => this.setLevel(1),
      3: () => this.setLevel(2),
      4: () => {
        if (!(this.stage instanceof Stage)) this.setLevel(ORDER);
      },
      '+': () => view.zoomBy?.(1.3),
      '=': () => view.zoomBy?.(1.3),
      '-': () => view.zoomBy?.(1 / 1.3),
      0: () => view.fit?.(true),
      ArrowLeft: () => along(-1),
      ArrowRight: () => along(1),
      ArrowUp: () => (isGraph ? view.moveBy(0, 60) : pan(0, -1)),
      ArrowDown: () => (isGraph ? view.moveBy(0, -60) : pan(0, 1)),
      n: () => this.walk(1),
      p: () => this.walk(-1),
      '[': () => this.playHead.step(-1),
      ']': () => this.playHead.step(1),
      '\\': () => this.playHead.toggle(),
      '.': () => this.search.walk(1),
      ',': () => this.search.walk(-1),
      o: () => {
        if (isGraph && this.chosen) view.openAround(this.chosen);
      },
      Escape: () => {
        if (this.chosen) this.choose(null);
        else if ($('search').value) {
          $('search').value = '';
          this.search.clear();
        } else {
          this.playHead.pause();
          this.playHead.set(null);
        }
      },
    };
    // Lists are scrolled by the browser.
    if (!isGraph && !view.panBy && /^Arrow(Up|Down)$/.test(event.key)) return;
    if (acts[event.key]) {
      event.preventDefault();
      acts[event.key]();
    }
  }

  // What is shown

  setEntry(index) {
    this.entry = this.entries[index];
    this.stageIndex = Math.min(this.stageIndex, this.entry.stages.length - 1);
    this.chosen = null;
    $('search').value = '';
    this.search.clear();
    this.views.graph.toggled.clear();
    this.playHead.reset();
    this.changed(true);
  }

  /** To the next stage, in a direction, that means something. */
  step(by) {
    this.setStage(this.entry.next(this.stageIndex, by));
  }

  setStage(index) {
    index = Math.max(0, Math.min(this.entry.stages.length - 1, index));
    if (index === this.stageIndex) return;
    const special = i => !(this.entry.stages[i] instanceof Stage),
      refit = special(index) || special(this.stageIndex);
    this.stageIndex = index;
    this.walked = null;
    this.stale.add('graph');
    this.refresh({ fit: refit });
    this.panel.draw();
    this.remember();
  }

  /** Along what the pass before this stage did. */
  walk(by) {
    if (this.tab !== 'graph') this.setTab('graph');
    if (!(this.stage instanceof Stage) || !changeList(this.stage).length) return;
    const list = changeList(this.stage),
      n = list.length;
    this.walked = this.walked === null || this.walked === undefined ? (by > 0 ? 0 : n - 1) : (this.walked + by + n) % n;
    this.choose({ kind: 'node', id: this.entry.names[list[this.walked].name] }, { stay: true });
    this.views.graph.reveal(this.chosen);
  }

  setTab(name) {
    this.tab = name;
    this.refresh();
    if (!this.isIdle) this.view.reveal?.(this.chosen);
    if (!this.chosen) {
      this.playHead.show(true);
      this.panel.draw();
    }
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
    store('gcc-gan-theme', theme);
  }

  changed(fit) {
    for (const name of Object.keys(this.views)) this.stale.add(name);
    this.refresh({ fit });
    this.panel.draw();
    this.remember();
  }

  refresh(how) {
    this.hover?.hide();
    const { stage, entry } = this,
      isGraph = this.tab === 'graph';
    $('entry').value = this.entries.indexOf(entry);
    this.strip.draw();
    // Memory, kernels and times are of what was scheduled.
    $('stages').hidden = $('about').hidden = !isGraph;
    $('scheduled').hidden = isGraph;
    $('scheduled').textContent =
      `What was scheduled after ${many(entry.graphStages.length, 'stage')}: ` +
      `${many(entry.kernels.length, 'kernel')}, ${many(entry.buffers.length, 'buffer')}.`;
    const idle = this.isIdle;
    $('nothing').hidden = !idle;
    $('nothing').textContent = `${entry.name} has no kernels: there is nothing to run.`;
    for (const name of Object.keys(this.views)) {
      $(name).hidden = idle || name !== this.tab;
      $('tab-' + name).setAttribute('aria-selected', name === this.tab);
      $('tab-' + name).tabIndex = name === this.tab ? 0 : -1;
    }
    $('levels').classList.toggle('away', !isGraph);
    $('in-order').hidden = stage instanceof Stage;
    $('one-box').textContent = stage instanceof Stage ? 'layers' : 'kernels';
    for (const button of $('levels').children)
      button.setAttribute('aria-pressed', Number(button.dataset.level) === this.views.graph.level);
    if (!idle && this.stale.delete(this.tab)) this.view.draw(how);
    this.playHead.show();
  }

  // What is chosen: { kind: 'node' | 'group' | 'kernel' | 'buffer' | 'line', id }, a node by its name

  choose(chosen, { stay = false } = {}) {
    this.hover?.hide();
    this.chosen = chosen;
    if (chosen && !stay) {
      if (chosen.kind === 'node' || chosen.kind === 'group') {
        if (chosen.kind === 'node') {
          const { stage, entry } = this,
            found = entry.stageWith(chosen.id, stage instanceof Stage ? stage.index : entry.last.index);
          const shown =
            stage instanceof Stage
              ? stage.node(chosen.id) || stage.changes?.removed.has(entry.indexOf(chosen.id))
              : entry.kernelsOf.has(chosen.id);
          const inBase = found < 0 && entry.baseStage?.node(chosen.id);
          if (!shown && (found >= 0 || inBase)) {
            this.stageIndex = inBase ? entry.stages.length - 1 : found;
            this.walked = null;
            this.stale.add('graph');
          }
        }
        this.tab = 'graph';
      }
      if (chosen.kind === 'kernel' && this.tab === 'memory') this.tab = 'kernels';
      if (chosen.kind === 'buffer') this.tab = 'memory';
    }
    if (!stay) this.refresh();
    this.mark();
    if (chosen && !stay && !this.isIdle) this.view.reveal?.(chosen);
    this.panel.draw();
    this.remember();
  }

  setHits(hits) {
    if (!hits.length && !this.hits.length) return;
    this.hits = hits;
    this.mark();
  }

  mark() {
    if (!this.stale.has(this.tab)) this.view.mark();
    for (const name of Object.keys(this.views)) if (name !== this.tab && name !== 'graph') this.stale.add(name);
    if (this.tab !== 'graph' && !this.stale.has('graph')) this.stale.add('graph');
  }

  link(chosen, text, title = text) {
    return html('button', { class: 'link', title, onclick: () => this.choose(chosen) }, text);
  }

  // The address: what is shown can be linked to

  remember() {
    // Browsers allow only so many changes of the address in a time.
    clearTimeout(this.remembering);
    const write = () => {
      const parts = { entry: this.entry.name, stage: this.stage.name, tab: this.tab, level: this.views.graph.level };
      if (this.chosen) Object.assign(parts, { [this.chosen.kind]: this.chosen.id });
      if (this.playHead.at !== null) parts.at = this.playHead.at;
      this.hash = '#' + new URLSearchParams(parts);
      try {
        history.replaceState(null, '', this.hash);
      } catch {
        /* not everywhere allowed */
      }
    };
    this.remembering = setTimeout(write, 120);
  }

  restore() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const theme = wanted.get('theme') ?? stored('gcc-gan-theme');
    document.documentElement.dataset.theme =
      theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
    this.entry = this.entries.find(e => e.name === wanted.get('entry')) ?? this.entries[DATA.main];
    this.stageIndex = Math.max(
      0,
      this.entry.stages.findIndex(s => s.name === wanted.get('stage')),
    );
    if (this.views[wanted.get('tab')]) this.tab = wanted.get('tab');
    if (/^[0123]$/.test(wanted.get('level') ?? '')) this.views.graph.level = Number(wanted.get('level'));
    const { entry } = this,
      numbered = list => id => (list[id] ? Number(id) : null);
    const valid = {
      node: id => (entry.stageWith(id, 0) >= 0 || entry.baseStage?.node(id) ? id : null),
      kernel: numbered(entry.kernels),
      buffer: numbered(entry.buffers),
      group: id => (entry.groups.some(group => group.id === id) ? id : null),
      line: id => (this.lines[id - 1] !== undefined ? Number(id) : null),
    };
    this.chosen = null;
    for (const [kind, check] of Object.entries(valid)) {
      const id = wanted.has(kind) ? check(wanted.get(kind)) : null;
      if (id !== null) this.chosen = { kind, id };
    }
    this.playHead.reset(wanted.has('at') ? valid.kernel(wanted.get('at')) : null);
    this.changed(true);
    this.playHead.show(true);
    if (this.chosen && !this.isIdle) this.view.reveal?.(this.chosen);
  }
}

const app = new App();
document.documentElement.dataset.ready = 'yes';
