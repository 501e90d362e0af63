'use strict';
// Another program, B, beside the one of the page, A: what differs in the graph, and a waterfall of milliseconds, or, where
// times say nothing, what kernels compute and move.

const FALLS = 40; // changes of kernels that are shown before one asks for more

const MATCHED =
  'Kernels are matched by name, then by the node that they are built around, then by layer, role and kind';

/** Adds to an entry the last graph of B, and a stage that shows what A has made of it. */
function addBase(entry) {
  const { base, last } = entry;
  entry.baseStage = new Stage(
    entry,
    { name: 'B', about: 'The other program.', nodes: base.nodes, results: base.results },
    -1,
  );
  const about = 'What the optimised graph of A has that B has not, and the other way round.';
  const against = new Stage(
    entry,
    { name: 'against B', about, nodes: last.ids, results: last.results },
    entry.stages.length,
  );
  against.isAgainst = true;
  against.base = entry.baseStage;
  entry.stages.push(against);
}

/** What one side was compiled with that the other was not; all where nothing differs. */
function sideWords(side, other) {
  const words = of => [
    of.program,
    ...(of.file === of.program ? [] : [of.file]),
    ...of.with,
    ...[of.device, of.profile].filter(Boolean),
  ];
  const theirs = new Set(words(other)),
    own = words(side).filter(word => !theirs.has(word));
  return own.length ? own.join(', ') : [side.program, ...side.with].join(', ');
}

function signed(n, text) {
  return n === 0 ? '0' : (n > 0 ? '+' : '−') + text(Math.abs(n));
}

/** How to colour a change: not at all where it is no more than steps of one program differ by. */
function changeKind({ from, to, in_spread }) {
  return in_spread ? 'spread' : to < from ? 'less' : to > from ? 'more' : '';
}

const IN_SPREAD = 'no more than steps of one program differ by: each is among what the other took';

class AgainstView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
    this.all = false;
  }

  draw() {
    const { entry } = this.app,
      { a, b, only_a, only_b } = DATA.against;
    this.rows = new Map();
    const head = html(
      'p',
      { class: 'note sides' },
      html('b', {}, 'B'),
      ` ${sideWords(b, a)}`,
      html('span', { class: 'to' }, ' → '),
      html('b', {}, 'A'),
      ` ${sideWords(a, b)}`,
    );
    const others = [
      ['A', only_a],
      ['B', only_b],
    ]
      .filter(([, names]) => names.length)
      .map(([side, names]) =>
        html(
          'p',
          { class: 'note' },
          `Only ${side} has the ${names.length > 1 ? 'entries' : 'entry'} ${names.join(', ')}.`,
        ),
      );
    if (!entry.base) return this.host.replaceChildren(head, ...others, html('p', {}, `B has no entry ${entry.name}.`));
    this.host.replaceChildren(head, ...others, this.totals(), ...(entry.base.sums ? this.waterfall() : this.work()));
    this.mark();
  }

  totals() {
    const { entry } = this.app,
      { base } = entry,
      { sums } = base,
      sum = (list, of) => list.reduce((total, k) => total + k[of], 0);
    const row = (name, from, to, text, in_spread = false) => {
      const change = from === to ? '' : from === 0 ? 'new' : signed(to / from - 1, percent);
      const kind = changeKind({ from, to, in_spread }),
        title = in_spread ? IN_SPREAD : '';
      return html(
        'tr',
        { title },
        html('td', { class: 'text' }, name),
        html('td', {}, text(from)),
        html('td', {}, text(to)),
        html('td', { class: kind }, change),
      );
    };
    const changes = entry.stages[entry.stages.length - 1].changes;
    const go = html(
      'button',
      { class: 'link', onclick: () => (this.app.setTab('graph'), this.app.setStage(entry.stages.length - 1)) },
      'in the graph',
    );
    return html(
      'div',
      { class: 'totals' },
      html(
        'table',
        { class: 'list' },
        html(
          'thead',
          {},
          html(
            'tr',
            {},
            ...['', 'B', 'A', 'change'].map((name, i) => html('th', { class: i ? '' : 'text', scope: 'col' }, name)),
          ),
        ),
        html(
          'tbody',
          {},
          ...(sums
            ? [
                row(
                  sums.measured ? 'step, measured' : 'kernels at the ceilings',
                  sums.from,
                  sums.to,
                  time,
                  sums.in_spread,
                ),
              ]
            : []),
          row('kernels', base.kernels.length, entry.kernels.length, String),
          row('nodes', base.nodes.length, entry.last.nodes.length, String),
          row('FLOPs', sum(base.kernels, 'flops'), sum(entry.kernels, 'flops'), count),
          row('bytes moved', sum(base.kernels, 'bytes'), sum(entry.kernels, 'bytes'), bytes),
          row('arena', base.arena, entry.arena, bytes),
          row('live at most', base.lower_bound, entry.lower_bound, bytes),
        ),
      ),
      changes.added.size + changes.removed.size + changes.changed.size
        ? html(
            'p',
            { class: 'note' },
            'Nodes: ',
            html('span', { class: 'added' }, `+${changes.added.size} only in A`),
            ', ',
            html('span', { class: 'removed' }, `−${changes.removed.size} only in B`),
            ', ',
            html('span', { class: 'changed' }, `~${changes.changed.size} not the same`),
            ', ',
            go,
            '.',
          )
        : html('p', { class: 'note' }, 'The optimised graphs are the same.'),
    );
  }

  /** A change in words: the kernel of A, else that of B. */
  words({ a, b }) {
    const { entry } = this.app,
      { base } = entry;
    if (a !== null) return entry.kernels[a].words;
    if (b === null) return 'between kernels';
    const kernel = base.kernels[b];
    return kernelWords(kernel, kernel.core === null ? null : entry.baseStage.byName.get(kernel.core), entry);
  }

  /** The name of a change in a row: what became of the kernel, its role, and its words. */
  label(change) {
    const { a, b } = change,
      { entry } = this.app,
      kernel = a !== null ? entry.kernels[a] : b !== null ? entry.base.kernels[b] : null,
      fate = !kernel ? '' : a === null ? '− gone' : b === null ? '+ new' : '',
      title = kernel?.name ?? 'the time of a step in which no kernel runs',
      before = [];
    if (kernel) before.push(html('i', { class: 'dot swatch-' + kernel.role.kind, title: roleName(kernel.role) }));
    if (fate) before.push(html('span', { class: 'chip fate' }, fate));
    return html('td', { class: 'text name' }, endsShown(this.words(change), title, ...before));
  }

  /** A row that chooses what a change is of. */
  row(change, ...cells) {
    const row = html('tr', { tabindex: 0 }, this.label(change), ...cells),
      choose = () => this.choose(change);
    row.addEventListener('click', choose);
    row.addEventListener('keydown', event => {
      if (event.key === 'Enter') choose();
    });
    if (change.a !== null) this.rows.set(change.a, row);
    return row;
  }

  /** What kernels compute and move, where no time is to be compared. */
  work() {
    const { entry } = this.app,
      { base } = entry,
      of = ({ a, b }, what) => [b === null ? null : base.kernels[b][what], a === null ? null : entry.kernels[a][what]],
      grows = change => {
        const [from, to] = of(change, 'bytes');
        return Math.abs((to ?? 0) - (from ?? 0));
      };
    const differs = base.changes.filter(c => ['flops', 'bytes'].some(what => of(c, what)[0] !== of(c, what)[1])),
      same = base.changes.length - differs.length;
    differs.sort((x, y) => grows(y) - grows(x));
    const shown = this.all ? differs : differs.slice(0, FALLS);
    const cells = (change, what, text) =>
      of(change, what).map(value => html('td', {}, value === null ? '–' : text(value)));
    const rows = shown.map(c => this.row(c, ...cells(c, 'flops', count), ...cells(c, 'bytes', bytes)));
    if (shown.length < differs.length)
      rows.push(
        html(
          'tr',
          {},
          html(
            'td',
            { class: 'text name', colspan: 5 },
            html(
              'button',
              { class: 'link', onclick: () => ((this.all = true), this.draw()) },
              `and ${differs.length - shown.length} that differ less`,
            ),
          ),
        ),
      );
    const columns = ['kernel', 'FLOPs, B', 'A', 'bytes moved, B', 'A'];
    return [
      html(
        'p',
        { class: 'note no-times' },
        'Times are not compared: A and B are for different targets, and the ceilings of one machine say nothing of ' +
          'another. Measure each where it runs, by ',
        html('code', {}, 'gcc-gan profile'),
        ', and give both: ',
        html('code', {}, '--profile A.json --against-profile B.json'),
        '.',
      ),
      html('h3', {}, 'From B to A, kernel by kernel'),
      html(
        'p',
        { class: 'note' },
        `${MATCHED}; where most more or less is moved comes first` +
          `${same ? `, and ${same} compute and move the same` : ''}.`,
      ),
      html(
        'table',
        { class: 'list falls' },
        html(
          'thead',
          {},
          html('tr', {}, ...columns.map((name, i) => html('th', { class: i === 0 ? 'text' : '', scope: 'col' }, name))),
        ),
        html('tbody', {}, ...rows),
      ),
    ];
  }

  waterfall() {
    const { entry } = this.app,
      { base } = entry,
      { sums } = base,
      moved = base.changes.filter(c => c.from !== c.to || c.a === null || c.b === null),
      same = base.changes.length - moved.length;
    const shown = this.all ? moved : moved.slice(0, FALLS),
      rest = moved.slice(shown.length);
    // Where each bar begins and ends: they lead from B's sum to A's.
    let at = sums.from;
    const steps = shown.map(change => {
      const begin = at;
      at += change.to - change.from;
      return { change, begin, end: at };
    });
    const ends = [sums.from, sums.to, ...steps.map(step => step.end)],
      high = Math.max(...ends),
      low = Math.min(...ends);
    // Small changes of a large sum are seen from nearby.
    const zero = low > 0.6 * high ? Math.max(0, low - (high - low) * 0.25 - high * 0.001) : 0,
      x = seconds => (100 * (seconds - zero)) / (high - zero || 1);
    const bar = (begin, end, kind) => {
      const left = Math.min(x(begin), x(end)),
        width = Math.abs(x(end) - x(begin));
      return html(
        'td',
        { class: 'fall' },
        html('i', { class: kind, style: `left:${left.toFixed(3)}%;width:${width.toFixed(3)}%` }),
      );
    };
    const total = (name, seconds) => {
      const value = side => html('td', {}, side === name ? time(seconds) : '');
      const label = html('td', { class: 'text name' }, sums.measured ? `${name}, a step` : `${name}, all kernels`);
      return html('tr', { class: 'total' }, label, html('td'), bar(zero, seconds, 'sum'), value('B'), value('A'));
    };
    const body = html('tbody', {}, total('B', sums.from));
    for (const { change, begin, end } of steps) {
      const { a, b, from, to, in_spread } = change,
        kind = changeKind(change);
      body.append(
        this.row(
          change,
          html('td', { class: kind, title: in_spread ? IN_SPREAD : '' }, signed(to - from, time)),
          bar(begin, end, kind),
          html('td', {}, b === null && a !== null ? '–' : time(from)),
          html('td', {}, a === null && b !== null ? '–' : time(to)),
        ),
      );
    }
    if (rest.length) {
      const sum = of => rest.reduce((total, change) => total + change[of], 0),
        more = html(
          'button',
          { class: 'link', onclick: () => ((this.all = true), this.draw()) },
          `and ${rest.length} smaller changes`,
        );
      body.append(
        html(
          'tr',
          {},
          html('td', { class: 'text name' }, more),
          html('td', {}, signed(sum('to') - sum('from'), time)),
          bar(at, sums.to, sums.to < at ? 'less' : 'more'),
          html('td', {}, time(sum('from'))),
          html('td', {}, time(sum('to'))),
        ),
      );
    }
    body.append(total('A', sums.to));
    const kind = sums.measured
      ? 'Measured times of a typical step of each.'
      : `Least times by the ceilings of ${CEILINGS_OF}, the same for both: measure both (--profile, ` +
        '--against-profile) for what they really take.';
    const scale = zero ? ` Bars begin at ${time(zero)}.` : '';
    const spread = base.changes.some(change => change.in_spread)
      ? ' Grey is what steps of one program differ by too.'
      : '';
    const about =
      `${kind} ${MATCHED}; the largest change comes first${same ? `, and ${same} take as long as before` : ''}.` +
      `${spread}${scale}`;
    return [
      html('h3', {}, 'From B to A, kernel by kernel'),
      html('p', { class: 'note' }, about),
      html(
        'table',
        { class: 'list falls' },
        html(
          'thead',
          {},
          html(
            'tr',
            {},
            ...['kernel', 'change', '', 'B', 'A'].map((name, i) =>
              html('th', { class: i === 0 ? 'text' : '', scope: 'col' }, name),
            ),
          ),
        ),
        body,
      ),
    ];
  }

  /** The kernel of A; of what is gone, the node that it was built around. */
  choose({ a, b }) {
    const { entry } = this.app;
    if (a !== null) this.app.choose({ kind: 'kernel', id: a }, { stay: true });
    else if (b !== null && entry.base.kernels[b].core !== null)
      this.app.choose({ kind: 'node', id: entry.names[entry.base.kernels[b].core] }, { stay: true });
  }

  mark() {
    const marked = kernelsOf(this.app.entry, this.app.chosen);
    this.rows?.forEach((row, k) => row.classList.toggle('chosen', marked.has(k)));
  }

  reveal(chosen) {
    const [k] = kernelsOf(this.app.entry, chosen);
    this.rows?.get(k)?.scrollIntoView({ block: 'center' });
  }
}
