'use strict';
// The memory map: place in the arena over position in the schedule.

class MemoryView {
  constructor(host, app) {
    this.host = host;
    this.app = app;
  }

  draw() {
    const { entry } = this.app;
    const W = Math.max(560, Math.min(1500, this.host.clientWidth - 28)), H = Math.max(380, Math.min(760, this.host.clientHeight - 200));
    const left = 74, right = 14, top = 16, bottom = 26, strip = 96;
    const steps = Math.max(1, entry.kernels.length), arena = Math.max(1, entry.arena);
    const x = at => left + (W - left - right) * at / steps, y = offset => top + (H - top - bottom) * (1 - offset / arena);
    const chart = svg('svg', { class: 'chart', viewBox: `0 0 ${W} ${H + strip}`, role: 'group', 'aria-label': 'Memory map' });
    for (const tick of ticks(arena, 1024)) {
      chart.append(svg('line', { class: 'grid', x1: left, x2: W - right, y1: y(tick), y2: y(tick) }),
        svg('text', { class: 'small', x: left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, bytes(tick)));
    }
    this.elements = new Map();
    entry.buffers.forEach((buffer, b) => {
      if (!buffer.bytes || buffer.live[1] <= buffer.live[0]) return;
      const x0 = x(Math.min(buffer.live[0], steps)), x1 = x(Math.min(buffer.live[1], steps));
      const y1 = y(buffer.offset), y0 = y(buffer.offset + buffer.bytes);
      const rect = svg('rect', {
        class: `item ${this.roleOf(buffer)}`, x: x0, y: y0, width: Math.max(1, x1 - x0), height: Math.max(1, y1 - y0), tabindex: 0, role: 'button', 'data-buffer': b,
        'aria-label': `buffer ${buffer.name}, ${bytes(buffer.bytes)}`,
      }, svg('title', {}, `${buffer.name}\n${buffer.role}, ${buffer.ty}, ${bytes(buffer.bytes)}\nat ${buffer.offset}, live ${buffer.live[0]}..${buffer.live[1]}${buffer.over.map(({ kernel, buffer: old }) => `\nin place over ${entry.buffers[old].name}, by kernel ${kernel}`).join('')}`));
      this.elements.set(b, rect);
      chart.append(rect);
      const name = buffer.name.split('/').slice(-2).join('/');
      if (y1 - y0 > 13 && x1 - x0 > textWidth(name) + 10) {
        chart.append(svg('text', { class: 'small', x: x0 + 5, y: (y0 + y1) / 2 + 4, 'pointer-events': 'none' }, name));
      }
    });
    const peak = entry.live.indexOf(Math.max(...entry.live));
    const base = H + strip - 20, height = strip - 30;
    const level = live => base - height * live / arena;
    chart.append(svg('line', { class: 'mark', x1: left, x2: W - right, y1: y(entry.lower_bound), y2: y(entry.lower_bound) }));
    const ratio = entry.arena / Math.max(1, entry.lower_bound);
    chart.append(svg('line', { class: 'mark', x1: x(peak + .5), x2: x(peak + .5), y1: top, y2: base }));
    let area = `M${x(0)},${base}`;
    entry.live.forEach((live, k) => { area += `L${x(k)},${level(live)}L${x(k + 1)},${level(live)}`; });
    chart.append(svg('path', { class: 'live', d: area + `L${x(steps)},${base}Z` }),
      svg('line', { class: 'mark', x1: left, x2: W - right, y1: level(entry.lower_bound), y2: level(entry.lower_bound) }),
      svg('text', { class: 'small', x: left - 6, y: level(entry.lower_bound) + 4, 'text-anchor': 'end' }, 'peak'),
      svg('text', { class: 'small', x: left - 6, y: base, 'text-anchor': 'end' }, 'live bytes'));
    for (const tick of ticks(steps, 10)) chart.append(svg('text', { class: 'small', x: x(tick), y: base + 14, 'text-anchor': 'middle' }, String(tick)));
    const choose = event => {
      const item = event.target.closest('[data-buffer]');
      if (item) this.app.choose({ kind: 'buffer', id: Number(item.dataset.buffer) }, { stay: true });
    };
    chart.addEventListener('click', choose);
    chart.addEventListener('keydown', event => { if (event.key === 'Enter') choose(event); });
    const legend = html('p', { class: 'note' },
      ...[['forward', 'forward'], ['gradient', 'backward'], ['optimiser', 'optimiser'], ['leaf', 'input, state']].flatMap(([kind, text]) => [html('span', { class: 'chip ' + kind }, text), ' ']));
    this.host.replaceChildren(
      html('p', { class: 'note' }, `Arena ${bytes(entry.arena)}; lower bound ${bytes(entry.lower_bound)} (ratio ${ratio.toFixed(4)}), the live bytes at kernel ${peak}: `,
        this.app.link({ kind: 'kernel', id: peak }, entry.kernels[peak]?.name ?? 'none'), `. State takes ${bytes(entry.state)} at the bottom. Across: position in the schedule; up: place in the arena.`),
      legend, chart);
    this.mark();
  }

  /** A buffer is coloured by the kernel that writes it first. */
  roleOf(buffer) {
    if (buffer.role === 'state' || buffer.role === 'input' || !buffer.writers.length) return 'leaf';
    return this.app.entry.kernels[buffer.writers[0]].role.kind;
  }

  mark() {
    if (!this.elements) return;
    const { chosen, entry } = this.app, ids = new Set();
    if (chosen?.kind === 'buffer') ids.add(chosen.id);
    if (chosen?.kind === 'kernel') { const k = entry.kernels[chosen.id]; k.reads.concat(k.writes).forEach(b => ids.add(b)); }
    if (chosen?.kind === 'node' && entry.bufferOf.has(chosen.id)) ids.add(entry.bufferOf.get(chosen.id));
    this.elements.forEach((element, b) => element.classList.toggle('chosen', ids.has(b)));
  }
}

/** Round numbers from 0 to `most`, some five of them. */
function ticks(most, radix) {
  const power = radix ** Math.floor(Math.log(most / 4) / Math.log(radix));
  let step = Math.max(power, radix === 10 ? 1 : power);
  while (most / step > 8) step *= 2;
  step = Math.max(1, step);
  const found = [];
  for (let at = 0; at <= most; at += step) found.push(at);
  return found;
}
