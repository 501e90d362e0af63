'use strict';
// The list of kernels, the roofline they lie under, and the timeline of a measured step.

class KernelsView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
    this.sort = null;
  }

  columns() {
    const measured = Boolean(this.app.entry.profile);
    return [
      { name: '#', text: k => String(k.at), value: k => -k.at },
      { name: 'kernel', left: true, text: k => k.name, value: k => k.name },
      { name: 'kind', left: true, text: k => k.kind, value: k => k.kind },
      { name: 'FLOPs', text: k => count(k.flops), value: k => k.flops },
      { name: 'bytes', text: k => bytes(k.bytes), value: k => k.bytes },
      { name: 'FLOP/byte', text: k => k.intensity.toFixed(2), value: k => k.intensity },
      { name: 'at ceiling', text: k => time(k.ceiling), value: k => k.ceiling },
      ...(measured ? [
        { name: 'measured', text: k => time(k.time.seconds), value: k => k.time.seconds },
        { name: 'share', text: k => (100 * k.time.share).toFixed(1) + ' %', value: k => k.time.share },
        { name: 'GFLOP/s', text: k => (k.flops / k.time.seconds / 1e9).toFixed(1), value: k => k.flops / k.time.seconds },
        { name: 'GB/s', text: k => (k.bytes / k.time.seconds / 1e9).toFixed(1), value: k => k.bytes / k.time.seconds },
        { name: 'of ceiling', text: k => (100 * k.time.of_ceiling).toFixed(0) + ' %', value: k => k.time.of_ceiling },
      ] : []),
    ];
  }

  draw() {
    const { entry } = this.app, columns = this.columns();
    if (!this.sort || !columns.some(c => c.name === this.sort.by)) this.sort = { by: entry.profile ? 'measured' : 'FLOPs', down: true };
    const sorted = columns.find(c => c.name === this.sort.by);
    const order = [...entry.kernels].sort((a, b) => {
      const [p, q] = [sorted.value(a), sorted.value(b)];
      const less = typeof p === 'string' ? -p.localeCompare(q) : p - q;
      return (this.sort.down ? -less : less) || a.at - b.at;
    });
    const head = html('tr', {}, ...columns.map(column => {
      const cell = html('th', { class: column.left ? 'text' : '', scope: 'col' }, html('button', {
        onclick: () => {
          this.sort = { by: column.name, down: this.sort.by === column.name ? !this.sort.down : true };
          this.draw();
        },
      }, column.name));
      if (column === sorted) cell.setAttribute('aria-sort', this.sort.down ? 'descending' : 'ascending');
      return cell;
    }));
    this.rows = new Map();
    const body = html('tbody');
    for (const kernel of order) {
      const row = html('tr', { 'data-kernel': kernel.at, tabindex: 0 }, ...columns.map(column => {
        const cell = html('td', { class: column.left ? (column.name === 'kernel' ? 'text name' : 'text') : '' });
        if (column.name === 'kind') cell.append(html('span', { class: 'chip ' + kernel.role.kind, title: roleName(kernel.role) }, kernel.kind));
        else cell.append(column.text(kernel));
        return cell;
      }));
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
      const { step } = entry.profile, foot = html('tfoot');
      for (const [name, seconds] of [['between kernels', step.between_seconds], ['the step', step.seconds]]) {
        const cells = { kernel: name, measured: time(seconds), share: (100 * seconds / step.seconds).toFixed(1) + ' %' };
        foot.append(html('tr', {}, ...columns.map(c => html('td', { class: c.left ? 'text' : '' }, cells[c.name] ?? ''))));
      }
      table.append(foot);
    }
    table.addEventListener('click', choose);
    table.addEventListener('keydown', event => { if (event.key === 'Enter') choose(event); });
    this.host.replaceChildren(this.roofline(), table);
    this.mark();
  }

  /** Rate over intensity, both logarithmic, under the two ceilings. */
  roofline() {
    const { entry } = this.app, machine = DATA.machine;
    const W = Math.max(520, Math.min(1100, this.host.clientWidth - 28)), H = 300, left = 66, right = 16, top = 14, bottom = 34;
    const kernels = entry.kernels.filter(k => k.flops && k.bytes);
    const rate = k => k.flops / (k.time ? k.time.seconds : k.ceiling);
    const floor10 = v => Math.floor(Math.log10(v)), ceil10 = v => Math.ceil(Math.log10(v));
    const ridge = machine.flops_per_second / machine.bytes_per_second;
    const x0 = Math.min(-2, ...kernels.map(k => floor10(k.intensity))), x1 = Math.max(ceil10(ridge) + 1, ...kernels.map(k => ceil10(k.intensity)));
    const y1 = ceil10(machine.flops_per_second), y0 = Math.max(y1 - 7, Math.min(y1 - 3, ...kernels.map(k => floor10(rate(k)))));
    const x = v => left + (W - left - right) * (Math.log10(v) - x0) / (x1 - x0);
    const y = v => top + (H - top - bottom) * (1 - (Math.max(y0, Math.log10(v)) - y0) / (y1 - y0));
    const chart = svg('svg', { class: 'chart', viewBox: `0 0 ${W} ${H}`, role: 'group', 'aria-label': 'Roofline', style: `max-width:${W}px` });
    for (let e = x0; e <= x1; e++) {
      chart.append(svg('line', { class: 'grid', x1: x(10 ** e), x2: x(10 ** e), y1: top, y2: H - bottom }),
        svg('text', { class: 'small', x: x(10 ** e), y: H - bottom + 14, 'text-anchor': 'middle' }, e < 0 ? (10 ** e).toFixed(-e) : String(10 ** e)));
    }
    for (let e = y0; e <= y1; e++) {
      chart.append(svg('line', { class: 'grid', x1: left, x2: W - right, y1: y(10 ** e), y2: y(10 ** e) }),
        svg('text', { class: 'small', x: left - 6, y: y(10 ** e) + 4, 'text-anchor': 'end' }, count(10 ** e)));
    }
    chart.append(svg('text', { class: 'small', x: (left + W - right) / 2, y: H - 4, 'text-anchor': 'middle' }, 'FLOP / byte'),
      svg('text', { class: 'small', x: left + 6, y: top + 12 }, 'FLOP/s'),
      svg('path', { class: 'roof', d: `M${x(10 ** x0)},${y(machine.bytes_per_second * 10 ** x0)}L${x(ridge)},${y(machine.flops_per_second)}L${x(10 ** x1)},${y(machine.flops_per_second)}` }),
      svg('text', { class: 'small', x: W - right, y: y(machine.flops_per_second) - 5, 'text-anchor': 'end' },
        `${(machine.flops_per_second / 1e9).toFixed(0)} GFLOP/s, ${(machine.bytes_per_second / 1e9).toFixed(0)} GB/s ${entry.profile ? 'measured' : 'assumed'}`));
    this.points = new Map();
    for (const kernel of kernels) {
      const weight = entry.profile ? kernel.time.share : kernel.ceiling / entry.kernels.reduce((sum, k) => sum + k.ceiling, 0);
      const point = svg('circle', {
        class: 'item ' + kernel.role.kind, cx: x(kernel.intensity), cy: y(rate(kernel)), r: 4 + 22 * Math.sqrt(weight) / 2, 'fill-opacity': .75, tabindex: -1, 'data-kernel': kernel.at,
      }, svg('title', {}, `${kernel.name}\n${kernel.intensity.toFixed(2)} FLOP/byte, ${(rate(kernel) / 1e9).toFixed(1)} GFLOP/s`));
      point.addEventListener('click', () => this.app.choose({ kind: 'kernel', id: kernel.at }, { stay: true }));
      this.points.set(kernel.at, point);
      chart.append(point);
    }
    return html('div', {}, html('p', { class: 'note' }, entry.profile
      ? `Measured rate of each kernel under the ceilings of the machine it was measured on; area by share of time.${entry.profile.busy ? ` The machine was busy: ${entry.profile.busy}; ceilings may be too low.` : ''}`
      : 'Not measured: each kernel at the ceiling that binds it, which is the least time it can take. `gcc-gan profile` measures; `gcc-gan inspect --profile` shows it here.'), chart);
  }

  mark() {
    if (!this.rows) return;
    const at = this.app.chosen?.kind === 'kernel' ? this.app.chosen.id : -1;
    this.rows.forEach((row, k) => row.classList.toggle('chosen', k === at));
    this.points.forEach((point, k) => point.classList.toggle('chosen', k === at));
  }

  reveal() {
    this.rows?.get(this.app.chosen?.kind === 'kernel' ? this.app.chosen.id : -1)?.scrollIntoView({ block: 'center' });
  }
}

class TimelineView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
  }

  draw() {
    const { entry } = this.app, profile = entry.profile;
    this.elements = new Map();
    if (!profile) {
      this.host.replaceChildren(html('p', { class: 'note' }, 'Nothing was measured. These two commands bring times in:'),
        html('pre', {}, `gcc-gan profile ${DATA.file} --steps 20 -o step.json\ngcc-gan inspect ${DATA.file} --profile step.json -o ${DATA.program}.html`));
      return;
    }
    // Lines of equal length, as a step is far longer than wide: the time goes on in the next.
    const end = Math.max(...profile.launches.map(([, start, length]) => start + length));
    const W = Math.max(560, Math.min(1500, this.host.clientWidth - 28)), lines = 6, gap = 62, left = 62, right = 10, span = end / lines;
    const chart = svg('svg', { class: 'chart', viewBox: `0 0 ${W} ${lines * gap + 10}`, role: 'group', 'aria-label': 'Timeline' });
    const scale = (W - left - right) / span;
    for (let line = 0; line < lines; line++) {
      const y = line * gap;
      chart.append(svg('line', { class: 'axis', x1: left, x2: W - right, y1: y + 50, y2: y + 50 }),
        svg('text', { class: 'small', x: left - 6, y: y + 32, 'text-anchor': 'end' }, time(line * span / 1e6)));
    }
    for (const [k, start, length] of profile.launches) {
      const kernel = entry.kernels[k];
      for (let line = Math.floor(start / span); line < lines && line * span < start + length; line++) {
        const from = Math.max(start, line * span), to = Math.min(start + length, (line + 1) * span);
        const x = left + (from - line * span) * scale, width = Math.max(1, (to - from) * scale), y = line * gap + 12;
        const bar = svg('rect', { class: 'item ' + kernel.role.kind, x, y, width, height: 36, 'data-kernel': k, tabindex: -1 },
          svg('title', {}, `${kernel.name}\n${time(length / 1e6)} from ${time(start / 1e6)}`));
        bar.addEventListener('click', () => this.app.choose({ kind: 'kernel', id: k }, { stay: true }));
        push(this.elements, k, bar);
        chart.append(bar);
        const room = Math.floor((width - 8) / 6.2);
        if (room > 6) chart.append(svg('text', { class: 'small', x: x + 4, y: y + 22, 'pointer-events': 'none' }, clip(kernel.name, room)));
      }
    }
    this.host.replaceChildren(html('p', { class: 'note' },
      `A typical step of ${profile.steps}: ${time(profile.step.seconds)} on ${profile.device}, one line after the other.`), chart);
    this.mark();
  }

  mark() {
    const at = this.app.chosen?.kind === 'kernel' ? this.app.chosen.id : -1;
    this.elements?.forEach((bars, k) => bars.forEach(bar => bar.classList.toggle('chosen', k === at)));
  }
}
