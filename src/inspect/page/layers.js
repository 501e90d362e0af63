'use strict';
// Where the step's time goes, and what layers cost in each role, under the ceilings of the machine.

class LayersView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
    this.sort = null;
    this.open = new Set();
  }

  /** Layers with their roles and what they come to. */
  layers() {
    const { entry } = this.app,
      found = new Map();
    for (const cost of entry.costs.layers) push(found, cost.layer, cost);
    return [...found].map(([layer, roles], at) => {
      const sum = of => roles.reduce((total, role) => total + of(role), 0);
      const total = {
        at,
        layer,
        roles,
        flops: sum(r => r.flops),
        bytes: sum(r => r.bytes),
        ceiling: sum(r => r.ceiling),
        launches: sum(r => r.launches),
        kernels: roles.flatMap(r => r.kernels),
      };
      if (entry.profile) total.seconds = sum(r => r.seconds);
      return total;
    });
  }

  columns() {
    const { profile } = this.app.entry,
      all = this.app.entry.kernels.reduce((sum, k) => sum + (profile ? k.time.seconds : k.ceiling), 0),
      whole = profile ? profile.step.seconds : all;
    const main = c => c.seconds ?? c.ceiling,
      part = c => (c.ceiling - c.launches) / c.seconds;
    return [
      { name: 'layer', left: true, value: c => c.at, ascending: true },
      { name: profile ? 'measured' : 'at ceiling', text: c => time(main(c)), value: main },
      {
        name: profile ? 'share' : 'share of ceilings',
        text: c => percent(main(c) / whole),
        value: main,
        bar: c => main(c) / whole,
      },
      ...(profile
        ? [
            { name: 'of ceiling', text: c => percent(part(c)), value: part },
            { name: 'at ceiling', spare: 'more', text: c => time(c.ceiling), value: c => c.ceiling },
          ]
        : []),
      { name: 'bound by', left: true, text: c => c.bound ?? '', value: c => c.roles?.[0].bound ?? '' },
      { name: 'FLOPs', spare: profile && 'more', text: c => count(c.flops), value: c => c.flops },
      { name: 'bytes', text: c => bytes(c.bytes), value: c => c.bytes },
      {
        name: 'FLOP/byte',
        spare: 'more',
        text: c => (c.bytes ? (c.flops / c.bytes).toFixed(2) : ''),
        value: c => c.flops / (c.bytes || 1),
      },
      { name: 'kernels', spare: 'more', text: c => String(c.kernels.length), value: c => c.kernels.length },
    ];
  }

  draw() {
    const { entry } = this.app;
    if (this.drawnEntry !== entry) {
      this.drawnEntry = entry;
      this.open.clear();
      this.sort = null;
    }
    const points = entry.costs.layers.map(cost => ({
      flops: cost.flops,
      bytes: cost.bytes,
      seconds: cost.seconds ?? cost.ceiling,
      role: cost.role,
      title: `${layerTitle(cost.layer)}, ${ROLE_WORDS[cost.role]}: bound by ${cost.bound}`,
      choose: () => this.toggle(cost),
    }));
    this.roofline = new Roofline(this.app, points, 'each layer in each role');
    this.host.replaceChildren(this.whole(), this.roofline.draw(this.host.clientWidth), this.table());
    this.mark();
  }

  /** The parts of the step as one bar. */
  whole() {
    const { entry } = this.app,
      { parts, between_steps: between } = entry.costs,
      sum = parts.reduce((total, part) => total + part.seconds, 0);
    const style = name =>
      ({ forward: 'forward', backward: 'gradient', update: 'optimiser' })[name] ?? name.split(' ')[0];
    const shown = parts.filter(part => part.seconds > 0);
    const bar = html(
      'div',
      { class: 'parts' },
      ...shown.map(part =>
        html('span', {
          class: 'part swatch-' + style(part.name),
          style: `flex-grow:${part.seconds / sum}`,
          title: `${part.name}: ${time(part.seconds)}, ${percent(part.seconds / sum)}\n${part.about}`,
        }),
      ),
    );
    const legend = html(
      'div',
      { class: 'row parts-legend' },
      ...shown.map(part =>
        html(
          'span',
          { title: part.about },
          html('i', { class: 'swatch swatch-' + style(part.name) }),
          ` ${part.name} `,
          html('b', {}, time(part.seconds)),
          ` ${percent(part.seconds / sum)}`,
          part.kernels ? `, ${many(part.kernels, 'kernel')}` : '',
        ),
      ),
    );
    const note = entry.profile
      ? `A typical step takes ${time(sum)} on ${entry.profile.device}. ` +
        (between === undefined
          ? ''
          : `From one step to the next pass ${time(between)} more: inputs are copied in, ` +
            'and the profiler notes its times. ') +
        'Reading data is not in a profile, whose inputs are made once.'
      : `Not measured: at the ceilings of ${CEILINGS_OF} the kernels of a step take ${time(sum)}. What passes ` +
        'between kernels and between steps is known with a profile.';
    return html('div', { class: 'whole' }, html('p', { class: 'note' }, note), bar, legend);
  }

  table() {
    const columns = this.columns();
    if (!columns.some(c => c.name === this.sort?.by)) this.sort = { by: columns[1].name, down: true };
    const sorted = columns.find(c => c.name === this.sort.by);
    const layers = this.layers().sort((a, b) => {
      const [p, q] = [sorted.value(a), sorted.value(b)];
      const less = typeof p === 'string' ? -p.localeCompare(q) : p - q;
      return (this.sort.down ? -less : less) || a.at - b.at;
    });
    const head = columns.map(column => {
      const order = () => {
        const down = this.sort.by === column.name ? !this.sort.down : !column.ascending;
        this.sort = { by: column.name, down };
        this.draw();
      };
      const cell = html(
        'th',
        { class: columnClass(column), scope: 'col' },
        html('button', { onclick: order }, column.name),
      );
      if (column === sorted) cell.setAttribute('aria-sort', this.sort.down ? 'descending' : 'ascending');
      return cell;
    });
    this.rows = [];
    const body = html('tbody');
    const row = (cost, name, kind) => {
      const element = html('tr', { class: kind });
      for (const column of columns) {
        const cell = html('td', { class: columnClass(column) }, column === columns[0] ? name : column.text(cost));
        if (column.bar) {
          cell.classList.add('bar');
          cell.style.setProperty('--part', percent(Math.min(1, column.bar(cost))).replace(' ', ''));
        }
        element.append(cell);
      }
      this.rows.push({ element, kernels: cost.kernels });
      body.append(element);
      return element;
    };
    for (const layer of layers) {
      row(layer, html('span', { title: layer.layer }, layerTitle(layer.layer)), 'layer');
      for (const cost of layer.roles) {
        const key = cost.layer + ' ' + cost.role,
          name = html(
            'span',
            { class: 'role' },
            html('i', { class: 'dot swatch-' + cost.role }),
            ROLE_WORDS[cost.role],
          );
        const element = row(cost, name, 'part');
        element.tabIndex = 0;
        element.setAttribute('aria-expanded', this.open.has(key));
        element.addEventListener('click', () => this.toggle(cost));
        element.addEventListener('keydown', event => {
          if (event.key === 'Enter') this.toggle(cost);
        });
        if (this.open.has(key)) body.append(this.kernels(cost, columns.length));
      }
    }
    return html('table', { class: 'list layers' }, html('thead', {}, html('tr', {}, ...head)), body);
  }

  /** Opens or closes the list of a row's kernels. */
  toggle(cost) {
    const key = cost.layer + ' ' + cost.role;
    if (!this.open.delete(key)) this.open.add(key);
    const at = this.host.scrollTop;
    this.draw();
    this.host.scrollTop = at;
  }

  kernels(cost, span) {
    const { app } = this,
      { kernels } = app.entry;
    const items = cost.kernels.map(k =>
      html(
        'li',
        {},
        html(
          'button',
          {
            class: 'link',
            title: kernels[k].name,
            onclick: () => app.choose({ kind: 'kernel', id: k }, { stay: true }),
          },
          `${k} ${kernels[k].words}`,
        ),
        ` ${time(kernels[k].time ? kernels[k].time.seconds : kernels[k].ceiling)}`,
      ),
    );
    return html('tr', { class: 'inside' }, html('td', { class: 'text', colspan: span }, html('ul', {}, ...items)));
  }

  mark() {
    if (!this.rows) return;
    const { entry, chosen } = this.app,
      marked = kernelsOf(entry, chosen);
    for (const { element, kernels } of this.rows)
      element.classList.toggle('chosen', !element.classList.contains('layer') && kernels.some(k => marked.has(k)));
  }

  reveal() {
    this.rows
      ?.find(({ element }) => element.classList.contains('chosen'))
      ?.element.scrollIntoView({ block: 'nearest' });
  }
}

/** `generator/4-conv_transpose` is `ConvT 4 of generator`. */
function layerTitle(layer) {
  return scopeWords(layer) ?? layer.replace('/', ': ');
}
