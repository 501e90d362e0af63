'use strict';
// What must be in memory together at the peak, why, and what computing one again would save and cost.

const MOST_AT_PEAK = 60; // rows that are drawn at first

class PeakPanel {
  constructor(app) {
    this.app = app;
    this.host = html('section', { class: 'peak', 'aria-label': 'What is live at the peak' });
    // In a narrow window the map needs the room.
    this.open = (stored('gcc-gan-peak') ?? (matchMedia('(max-width: 900px)').matches ? 'closed' : 'open')) === 'open';
  }

  draw() {
    const { entry } = this.app,
      { peak } = entry;
    this.rows = new Map();
    if (!peak) return this.host.replaceChildren();
    if (this.drawnEntry !== entry) {
      this.drawnEntry = entry;
      this.all = false;
    }
    const button = html(
      'button',
      {
        'aria-expanded': this.open,
        onclick: () => {
          this.open = !this.open;
          store('gcc-gan-peak', this.open ? 'open' : 'closed');
          this.draw();
          this.app.view.paint?.();
        },
      },
      this.open ? '▾' : '▸',
      ' at the peak',
    );
    const head = html('p', { class: 'note' }, button, ' ', ...this.certificate());
    this.host.replaceChildren(head, ...(this.open ? [html('div', { class: 'peak-list' }, this.table())] : []));
    this.mark();
  }

  /** Whether the arena is as small as it can be. */
  certificate() {
    const { entry } = this.app,
      { peak, arena } = entry,
      over = arena - peak.bytes;
    const together =
      `${many(peak.buffers.length, 'buffer')} must be there together while kernel ${peak.at} runs: ` +
      `${bytes(peak.bytes)}. `;
    return [
      html('b', { class: over ? '' : 'proof' }, over ? 'Not tight. ' : '✓ Tight. '),
      together,
      over
        ? `The arena has ${bytes(over)} more (${percent(over / peak.bytes)}): a better plan of this ` +
          'schedule could be that much smaller.'
        : 'The arena is as large, so no plan of this schedule can be smaller; only another order, or computing ' +
          'something again.',
    ];
  }

  table() {
    const { app } = this,
      { entry } = app,
      { peak } = entry,
      most = peak.buffers[0]?.bytes ?? 1;
    const states = peak.buffers.filter(b => b.why.kind === 'state'),
      others = peak.buffers.filter(b => b.why.kind !== 'state');
    const kernel = k => app.link({ kind: 'kernel', id: k }, `kernel ${k}`, entry.kernels[k].words);
    const body = html('tbody');
    const row = (size, name, why, again) => {
      const cell = html('td', { class: 'bar' }, bytes(size));
      cell.style.setProperty('--part', `${Math.min(100, (100 * size) / most)}%`);
      return html(
        'tr',
        {},
        cell,
        html('td', { class: 'text name' }, name),
        html('td', { class: 'text' }, ...why),
        ...again,
      );
    };
    const shown = this.all ? others : others.slice(0, MOST_AT_PEAK);
    for (const live of shown) {
      const buffer = entry.buffers[live.buffer],
        element = row(
          live.bytes,
          endsShown(
            bufferWords(entry, buffer),
            buffer.name,
            html('i', { class: 'dot swatch-' + app.views.memory.roleOf(buffer) }),
          ),
          this.why(live, kernel),
          this.again(live, kernel),
        );
      element.dataset.buffer = live.buffer;
      element.tabIndex = 0;
      this.rows.set(live.buffer, element);
      body.append(element);
    }
    if (shown.length < others.length) {
      const rest = others.slice(shown.length),
        more = html(
          'button',
          {
            class: 'link',
            onclick: () => {
              this.all = true;
              this.draw();
            },
          },
          `${many(rest.length, 'smaller buffer')}: show`,
        );
      body.append(
        row(
          rest.reduce((sum, b) => sum + b.bytes, 0),
          more,
          [''],
          this.nothing(''),
        ),
      );
    }
    const state = states.reduce((sum, b) => sum + b.bytes, peak.other_state);
    if (state) {
      const name =
        `state: ${many(states.length, 'tensor')}` + (states.length && peak.other_state ? ', and other state' : '');
      body.append(row(state, name, ['kept from run to run'], this.nothing('')));
    }
    const choose = event => {
      const found = event.target.closest('[data-buffer]');
      if (found && !event.target.closest('.link'))
        app.choose({ kind: 'buffer', id: Number(found.dataset.buffer) }, { stay: true });
    };
    const column = ([text, title, left, spare]) =>
      html('th', { class: columnClass({ left, spare }), scope: 'col' }, html('span', { title }, text));
    const columns = [
      ['bytes', 'Up to whole cache lines'],
      ['buffer', 'What is live at the peak', true],
      ['why it is there', 'The next kernel that needs it', true],
      [
        'would free',
        'Bytes at the peak, were it computed again when it is needed; what that needs is kept instead',
        false,
        'wide',
      ],
      [
        'falls at most',
        'By how much the peak would fall at most: less than what is freed where as much is live at another kernel, ' +
          'and without the room of what runs again',
      ],
      entry.profile
        ? ['costs, measured', 'What the kernels that would run again took in a typical step']
        : ['costs at least', `The least time of the kernels that would run again, at the ceilings of ${CEILINGS_OF}`],
      ['run again', 'These kernels', true, 'more'],
    ];
    const table = html('table', { class: 'list' }, html('thead', {}, html('tr', {}, ...columns.map(column))), body);
    table.addEventListener('click', choose);
    table.addEventListener('keydown', event => {
      if (event.key === 'Enter') choose(event);
    });
    return table;
  }

  why({ why, buffer }, kernel) {
    const { entry } = this.app,
      { peak } = entry,
      { reads, writes } = entry.kernels[peak.at];
    switch (why.kind) {
      case 'needed_by':
        return ['needed by ', roleName(entry.kernels[why.kernel].role).split(' ')[0], ' ', kernel(why.kernel)];
      case 'in_use': {
        const how = writes.includes(buffer) ? 'written by ' : reads.includes(buffer) ? 'read by ' : 'workspace of ';
        return [how, kernel(peak.at), ', at the peak'];
      }
      case 'output':
        return ['a result, kept to the end'];
      default:
        return ['kept from run to run'];
    }
  }

  again({ again }, kernel) {
    switch (again.kind) {
      case 'possible': {
        const [first, ...rest] = again.kernels,
          last = again.kernels[again.kernels.length - 1];
        const seconds = again.kernels.reduce((sum, k) => sum + secondsOf(this.app.entry.kernels[k]), 0);
        const list = rest.length ? [kernel(last), ` and ${rest.length} before it`] : [kernel(first)];
        return [
          html('td', { class: 'spare-wide' }, bytes(again.bytes)),
          html('td', {}, bytes(again.falls)),
          html('td', {}, time(seconds)),
          html('td', { class: 'text spare-more', title: again.kernels.join(', ') }, ...list),
        ];
      }
      case 'input':
        return this.nothing('an input: nothing computes it');
      case 'overwritten':
        return this.nothing('no: it is made from state that ', kernel(again.kernel), ' updates first');
      default:
        return this.nothing('');
    }
  }

  nothing(...text) {
    return [html('td', { class: 'text dim', colspan: 4 }, ...text)];
  }

  mark() {
    const { chosen } = this.app;
    this.rows?.forEach((row, b) => row.classList.toggle('chosen', chosen?.kind === 'buffer' && chosen.id === b));
  }
}

/** The column of the peak in the memory map: what is live there, and what of it is not in use. */
function peakColumn(map) {
  const { entry } = map.app,
    { peak } = entry,
    { left, right, top, bottom } = map.area;
  if (!peak) return [];
  const from = Math.max(left, map.x(peak.at)),
    to = Math.min(right, map.x(peak.at + 1));
  if (to < left || from > right) return [];
  const width = Math.max(3, to - from),
    g = svg('g', { class: 'peak-column', 'pointer-events': 'none' });
  g.append(svg('rect', { x: from, y: top, width, height: bottom - top }));
  return [g];
}
