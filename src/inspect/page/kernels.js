'use strict';
// The list of kernels, under the roofline that they lie under.

/** The classes of a column's cells; one that can be spared is not there in a narrow view. */
const columnClass = column => (column.left ? 'text' : '') + (column.spare ? ` spare-${column.spare}` : '');

class KernelsView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
    this.sort = null;
  }

  columns() {
    const measured = Boolean(this.app.entry.profile);
    const rate = n => (n / 1e9).toFixed(1),
      all = this.app.entry.kernels.reduce((sum, k) => sum + k.ceiling, 0);
    const told = k => k.time.of_ceiling;
    // What matters stands beside the name: how close to what the machine can do, and how much of the step it is.
    return [
      { name: '#', text: k => String(k.at), value: k => -k.at },
      { name: 'kernel', left: true, text: k => k.words, value: k => k.words },
      ...(measured
        ? [
            { name: 'of ceiling', text: k => percent(told(k)), value: told, bar: told },
            { name: 'measured', text: k => time(k.time.seconds), value: k => k.time.seconds },
            { name: 'share', text: k => percent(k.time.share), value: k => k.time.share, bar: k => k.time.share },
          ]
        : [
            {
              name: 'share of ceilings',
              text: k => percent(k.ceiling / all),
              value: k => k.ceiling,
              bar: k => k.ceiling / all,
            },
          ]),
      { name: 'at ceiling', spare: measured && 'more', text: k => time(k.ceiling), value: k => k.ceiling },
      ...(measured
        ? [
            { name: 'GFLOP/s', spare: 'more', value: k => k.flops / k.time.seconds },
            { name: 'GB/s', spare: 'more', value: k => k.bytes / k.time.seconds },
          ].map(column => ({ ...column, text: k => rate(column.value(k)) }))
        : []),
      { name: 'FLOPs', spare: measured && 'more', text: k => count(k.flops), value: k => k.flops },
      { name: 'bytes', text: k => bytes(k.bytes), value: k => k.bytes },
      { name: 'FLOP/byte', spare: 'wide', text: k => k.intensity.toFixed(2), value: k => k.intensity },
      { name: 'kind', left: true, spare: 'wide', text: k => k.kind, value: k => k.kind },
    ];
  }

  draw() {
    const { entry } = this.app,
      columns = this.columns();
    if (!this.sort || !columns.some(c => c.name === this.sort.by))
      this.sort = { by: entry.profile ? 'measured' : 'FLOPs', down: true };
    const sorted = columns.find(c => c.name === this.sort.by);
    const order = [...entry.kernels].sort((a, b) => {
      const [p, q] = [sorted.value(a), sorted.value(b)];
      const less = typeof p === 'string' ? -p.localeCompare(q) : p - q;
      return (this.sort.down ? -less : less) || a.at - b.at;
    });
    const head = html(
      'tr',
      {},
      ...columns.map(column => {
        const cell = html(
          'th',
          { class: columnClass(column), scope: 'col' },
          html(
            'button',
            {
              onclick: () => {
                this.sort = { by: column.name, down: this.sort.by === column.name ? !this.sort.down : true };
                this.draw();
              },
            },
            column.name,
          ),
        );
        if (column === sorted) cell.setAttribute('aria-sort', this.sort.down ? 'descending' : 'ascending');
        return cell;
      }),
    );
    this.rows = new Map();
    const body = html('tbody');
    for (const kernel of order) {
      const row = html(
        'tr',
        { 'data-kernel': kernel.at, tabindex: 0 },
        ...columns.map(column => {
          const cell = html('td', { class: columnClass(column) + (column.name === 'kernel' ? ' name' : '') });
          if (column.name === 'kernel')
            cell.append(
              endsShown(
                column.text(kernel),
                kernel.name,
                html('i', { class: 'dot swatch-' + kernel.role.kind, title: roleName(kernel.role) }),
              ),
            );
          else cell.append(column.text(kernel));
          if (column.bar) {
            cell.classList.add('bar');
            cell.style.setProperty('--part', percent(Math.min(1, column.bar(kernel))).replace(' ', ''));
          }
          return cell;
        }),
      );
      this.rows.set(kernel.at, row);
      body.append(row);
    }
    const choose = event => {
      const row = event.target.closest('[data-kernel]');
      if (row) this.app.choose({ kind: 'kernel', id: Number(row.dataset.kernel) }, { stay: true });
    };
    const table = html('table', { class: 'list' }, html('thead', {}, head), body);
    if (entry.profile) {
      // What the rows do not hold, and what all come to.
      const { step } = entry.profile,
        foot = html('tfoot');
      for (const [name, seconds] of [
        ['between kernels', step.between_seconds],
        ['the step', step.seconds],
      ]) {
        const cells = {
          kernel: name,
          measured: time(seconds),
          share: ((100 * seconds) / step.seconds).toFixed(1) + ' %',
        };
        foot.append(html('tr', {}, ...columns.map(c => html('td', { class: columnClass(c) }, cells[c.name] ?? ''))));
      }
      table.append(foot);
    }
    table.addEventListener('click', choose);
    table.addEventListener('keydown', event => {
      if (event.key === 'Enter') choose(event);
    });
    this.roofline = new Roofline(this.app);
    this.host.replaceChildren(this.roofline.draw(this.host.clientWidth), table);
    this.mark();
    this.app.playHead.show();
  }

  mark() {
    if (!this.rows) return;
    const { chosen, entry, hits } = this.app,
      marked = kernelsOf(entry, chosen);
    const found = new Set(hits.flatMap(hit => (hit.chosen.kind === 'kernel' ? [hit.chosen.id] : [])));
    for (const list of [this.rows, this.roofline.points]) {
      list.forEach((element, k) => {
        element.classList.toggle('chosen', marked.has(k));
        element.classList.toggle('found', found.has(k));
      });
    }
  }

  reveal(chosen) {
    const [k] = kernelsOf(this.app.entry, chosen);
    this.rows?.get(k)?.scrollIntoView({ block: 'center' });
  }
}
