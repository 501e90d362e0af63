'use strict';
// Fusions that were missed: for every two kernels between which a value lies in memory, why, and what one would save.

const MOST_MISSED = 150; // rows that are drawn at first

/** The missed fusion of two kernels, if one hands the other a value. */
function missedOf(entry, from, to) {
  entry.missedByPair ??= new Map(entry.missed.pairs.map(pair => [pair.from + ' ' + pair.to, pair]));
  return entry.missedByPair.get(from + ' ' + to);
}

/** What an edge between two kernels says. */
function missedText(entry, from, to) {
  const pair = missedOf(entry, from, to);
  if (!pair) return '';
  const through = pair.buffers.map(b => entry.buffers[b].name).join(', ');
  return (
    `${entry.kernels[from].words} → ${entry.kernels[to].words}\nthrough ${through}\n` +
    `not fused: ${entry.missed.reasons[pair.reason].text}\n` +
    `one kernel would save ${time(pair.seconds)} at the ceilings, and move ${bytes(pair.bytes)} less`
  );
}

/** In the panel: the missed fusions that some kernels or buffers are part of. */
function missedSection(panel, pairs) {
  const { entry } = panel.app;
  if (!pairs.length) return [];
  const item = pair =>
    html(
      'div',
      { class: 'missed-item' },
      html('b', {}, `saves ${time(pair.seconds)}`),
      ' ',
      panel.kernelLink(pair.from),
      ' → ',
      panel.kernelLink(pair.to),
      html('p', { class: 'hint' }, entry.missed.reasons[pair.reason].text),
    );
  return [html('h3', {}, 'Why not fused'), panel.links(pairs.map(item), 12)];
}

class MissedView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
    this.only = null; // the title of the reasons that are shown alone
    this.most = MOST_MISSED;
  }

  draw() {
    const { entry } = this.app,
      { missed } = entry;
    if (this.drawnEntry !== entry) {
      this.drawnEntry = entry;
      this.only = null;
      this.most = MOST_MISSED;
    }
    this.rows = new Map();
    if (!missed.pairs.length) {
      this.host.replaceChildren(
        html(
          'p',
          { class: 'note' },
          'No kernel reads what another kernel of this entry writes: there is nothing to fuse.',
        ),
      );
      return;
    }
    this.host.replaceChildren(...this.head(), this.reasons(), this.table());
    this.mark();
  }

  head() {
    const { entry } = this.app,
      machine = DATA.machine,
      ceilings = `${(machine.bytes_per_second / 1e9).toFixed(0)} GB/s and ${time(machine.launch_seconds)} a launch`;
    return [
      html(
        'p',
        { class: 'note' },
        `${many(entry.missed.pairs.length, 'pair')} of kernels hand a value on through memory. As one kernel each `,
        'would save a launch, and the bytes that need not be written and read again, at the ceilings of ',
        `${CEILINGS_OF} (${ceilings}); less where arithmetic takes as long anyway. Choose a reason to see its pairs.`,
      ),
    ];
  }

  /** Every sort of reason with what its pairs would save. */
  reasons() {
    const { missed } = this.app.entry,
      sorts = new Map();
    for (const pair of missed.pairs) {
      const { title } = missed.reasons[pair.reason];
      const sort = sorts.get(title) ?? { title, pairs: 0, seconds: 0 };
      sort.pairs++;
      sort.seconds += pair.seconds;
      sorts.set(title, sort);
    }
    const list = [...sorts.values()].sort((a, b) => b.seconds - a.seconds || (a.title < b.title ? -1 : 1)),
      most = list[0].seconds;
    return html(
      'div',
      { class: 'reasons', role: 'group', 'aria-label': 'Reasons' },
      ...list.map(({ title, pairs, seconds }) =>
        html(
          'button',
          {
            'aria-pressed': this.only === title,
            'data-reason': title,
            onclick: () => {
              this.only = this.only === title ? null : title;
              this.most = MOST_MISSED;
              this.draw();
            },
          },
          html('span', { class: 'title' }, title),
          html('span', { class: 'meter', style: `--part:${(100 * seconds) / most}%` }),
          html('span', { class: 'figure' }, `${time(seconds)} · ${pairs}`),
        ),
      ),
    );
  }

  table() {
    const { app } = this,
      { entry } = app,
      { missed } = entry;
    const shown = missed.pairs.filter(pair => this.only === null || missed.reasons[pair.reason].title === this.only),
      most = shown[0].seconds;
    const body = html('tbody');
    const kernel = k => {
      const { words, name, role } = entry.kernels[k];
      return html(
        'div',
        { class: 'line' },
        html('i', { class: 'dot swatch-' + role.kind, title: roleName(role) }),
        html(
          'button',
          { class: 'link', title: name, onclick: () => app.choose({ kind: 'kernel', id: k }, { stay: true }) },
          `${k} ${words}`,
        ),
      );
    };
    shown.slice(0, this.most).forEach((pair, i) => {
      const saves = html('td', { class: 'bar' }, time(pair.seconds));
      saves.style.setProperty('--part', `${(100 * pair.seconds) / most}%`);
      const buffers = pair.buffers.map(b =>
        html(
          'div',
          { class: 'line' },
          app.link({ kind: 'buffer', id: b }, `${entry.buffers[b].name} · ${bytes(entry.buffers[b].bytes)}`),
        ),
      );
      const row = html(
        'tr',
        {},
        html('td', {}, String(i + 1)),
        saves,
        html('td', {}, bytes(pair.bytes)),
        html('td', { class: 'text pair' }, kernel(pair.from), kernel(pair.to)),
        html(
          'td',
          { class: 'text why' },
          missed.reasons[pair.reason].text,
          html('div', { class: 'through' }, ...buffers),
        ),
      );
      this.rows.set(pair, row);
      body.append(row);
    });
    const head = ['#', 'saves', 'bytes less', 'writes, reads', 'why they are two, and what is between them'];
    const column = (text, i) =>
      html('th', { class: i > 2 ? 'text' : '', scope: 'col' }, i === 2 ? html('span', { title: LESS }, text) : text);
    return html(
      'table',
      { class: 'list missed' },
      html('thead', {}, html('tr', {}, ...head.map(column))),
      body,
      this.foot(shown),
    );
  }

  foot(shown) {
    const { missed, profile } = this.app.entry,
      sum = shown.reduce((total, pair) => total + pair.seconds, 0),
      step = profile ? profile.step.seconds : this.app.entry.kernels.reduce((total, k) => total + k.ceiling, 0),
      of = profile ? 'of the measured step' : 'of the step at the ceilings';
    const row = (seconds, moved, text) =>
      html(
        'tr',
        {},
        html('td'),
        html('td', {}, time(seconds)),
        html('td', {}, moved),
        html('td', { class: 'text', colspan: 2 }, text),
      );
    const foot = html('tfoot');
    if (shown.length > this.most) {
      const more = html(
        'button',
        {
          class: 'link',
          onclick: () => {
            this.most *= 4;
            this.draw();
          },
        },
        `${shown.length - this.most} more that save less`,
      );
      foot.append(html('tr', {}, html('td'), html('td'), html('td'), html('td', { class: 'text', colspan: 2 }, more)));
    }
    foot.append(row(sum, '', `the ${many(shown.length, 'row')} by themselves, ${percent(sum / step)} ${of}`));
    if (this.only === null)
      foot.append(
        row(
          missed.together_seconds,
          bytes(missed.together_bytes),
          `all at once, at most: ${percent(missed.together_seconds / step)} ${of}. Rows overlap and do not add up: ` +
            'kernels that several rows join save each launch and each byte once, and a value with several readers ' +
            'need not be written only where all of them join. No kernel could do all of this; it is what fusion can ' +
            'never exceed.',
        ),
      );
    return foot;
  }

  mark() {
    if (!this.rows) return;
    const { chosen } = this.app;
    this.rows.forEach((row, pair) => row.classList.toggle('chosen', isOfPair(pair, chosen)));
  }

  reveal(chosen) {
    if (!this.rows) return;
    for (const [pair, row] of this.rows) if (isOfPair(pair, chosen)) return row.scrollIntoView({ block: 'nearest' });
  }
}

const LESS = 'what both read is read once; what only these two touch is neither written nor read';

function isOfPair(pair, chosen) {
  if (chosen?.kind === 'kernel') return pair.from === chosen.id || pair.to === chosen.id;
  return chosen?.kind === 'buffer' && pair.buffers.includes(chosen.id);
}
