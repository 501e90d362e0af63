'use strict';
// The memory map: place in the arena over position in the schedule, with the live bytes beneath.

const STRIP = 84,
  NEAR = 5; // pixels: the height of the strip, and how far from a small buffer one may click

class MemoryView extends ZoomedChart {
  constructor(host, app) {
    super(host, app, 'xy');
    this.peak = new PeakPanel(app);
    host.append(this.peak.host);
  }

  draw() {
    const { entry } = this.app,
      { head } = this;
    this.setFull(Math.max(1, entry.kernels.length), Math.max(1, entry.arena));
    const peak = entry.live.indexOf(Math.max(...entry.live)),
      ratio = entry.arena / Math.max(1, entry.lower_bound);
    const chips = [
      ['forward', 'forward'],
      ['gradient', 'backward'],
      ['optimiser', ROLE_WORDS.optimiser],
      ['leaf', 'input, state'],
      ['handed', 'written in place over another'],
    ];
    head.replaceChildren(
      html(
        'p',
        { class: 'note' },
        `Arena ${bytes(entry.arena)}; lower bound ${bytes(entry.lower_bound)} (ratio ${ratio.toFixed(4)}), `,
        `the live bytes at kernel ${peak}: `,
        this.app.link({ kind: 'kernel', id: peak }, entry.kernels[peak]?.words ?? 'none'),
        `. State takes ${bytes(entry.state)} at the bottom. Across: position in the schedule; up: place in the arena.`,
      ),
      html(
        'p',
        { class: 'note row' },
        ...chips.map(([kind, text]) => html('span', { class: 'chip ' + kind }, text)),
        html('span', { class: 'grow' }),
        this.zoomButtons(),
      ),
    );
    this.peak.draw();
    this.paint();
  }

  paint() {
    const { entry } = this.app,
      W = Math.max(300, this.sheet.clientWidth),
      H = Math.max(240, this.sheet.clientHeight),
      { now } = this;
    this.area = { left: 70, right: W - 8, top: 8, bottom: H - STRIP - 8 };
    const { left, right, top, bottom } = this.area,
      steps = this.full.x1;
    const chart = svg('svg', { class: 'chart', width: W, height: H, role: 'group', 'aria-label': 'Memory map' });
    const clipped = svg('g', { 'clip-path': 'url(#map)' });
    chart.append(
      svg(
        'defs',
        {},
        svg('clipPath', { id: 'map' }, svg('rect', { x: left, y: top, width: right - left, height: bottom - top })),
        svg(
          'pattern',
          { id: 'hatch', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
          svg('path', { class: 'hatch', d: 'M0,0V6' }),
        ),
      ),
    );
    for (const tick of ticksBetween(now.y0, now.y1, 1024)) {
      chart.append(
        svg('line', { class: 'grid', x1: left, x2: right, y1: this.y(tick), y2: this.y(tick) }),
        svg('text', { class: 'small', x: left - 6, y: this.y(tick) + 4, 'text-anchor': 'end' }, bytes(tick)),
      );
    }
    chart.append(clipped);
    this.elements = new Map();
    const rectangle = buffer => {
      const x0 = this.x(Math.min(buffer.live[0], steps)),
        x1 = this.x(Math.min(buffer.live[1], steps));
      const low = this.y(buffer.offset),
        high = this.y(buffer.offset + buffer.bytes);
      return { x: x0, y: high, w: Math.max(1, x1 - x0), h: Math.max(1, low - high) };
    };
    const inside = r => r.x < right && r.x + r.w > left && r.y < bottom && r.y + r.h > top;
    this.rectangles = new Map();
    entry.buffers.forEach((buffer, b) => {
      if (!buffer.bytes || buffer.live[1] <= buffer.live[0]) return;
      const r = rectangle(buffer);
      if (!inside(r)) return;
      this.rectangles.set(b, r);
      const over = buffer.over
        .map(({ kernel, buffer: old }) => `\nin place over ${entry.buffers[old].name}, by kernel ${kernel}`)
        .join('');
      const rect = svg(
        'rect',
        {
          class: `item ${this.roleOf(buffer)}${r.h < 5 || r.w < 5 ? ' small-one' : ''}`,
          x: r.x,
          y: r.y,
          width: r.w,
          height: r.h,
          rx: Math.min(2, r.h / 3),
          tabindex: 0,
          role: 'button',
          'data-buffer': b,
          'aria-label': `buffer ${buffer.name}, ${bytes(buffer.bytes)}`,
        },
        svg(
          'title',
          {},
          `${buffer.name}\n${buffer.role}, ${buffer.ty}, ${bytes(buffer.bytes)}\n`,
          `at ${buffer.offset}, live ${buffer.live[0]}..${buffer.live[1]}${over}`,
        ),
      );
      this.elements.set(b, rect);
      clipped.append(rect);
      const shown = { x: Math.max(r.x, left), w: Math.min(r.x + r.w, right) - Math.max(r.x, left) };
      const name = bufferWords(entry, buffer),
        label = r.h > 13 ? fitted(name, shown.w - 10) : '';
      const middle = (Math.max(r.y, top) + Math.min(r.y + r.h, bottom)) / 2;
      if (label)
        clipped.append(svg('text', { class: 'small', x: shown.x + 5, y: middle + 4, 'pointer-events': 'none' }, label));
    });
    // Where a result is written over what its kernel reads, both are there during that kernel.
    for (const [b, r] of this.rectangles) {
      for (const { kernel } of entry.buffers[b].over) {
        const from = this.x(kernel),
          width = Math.max(2, this.x(kernel + 1) - from),
          g = svg('g', { class: 'handed', 'pointer-events': 'none' });
        g.append(
          svg('rect', { x: from, y: r.y, width, height: r.h }),
          svg('path', { class: 'joint', d: `M${from},${r.y}v${r.h}` }),
        );
        if (r.h > 11) g.append(svg('path', { class: 'arrow', d: `M${from - 5},${r.y + r.h / 2 - 4}l7,4l-7,4z` }));
        clipped.append(g);
      }
    }
    clipped.append(...peakColumn(this));
    clipped.append(
      svg('line', { class: 'mark', x1: left, x2: right, y1: this.y(entry.lower_bound), y2: this.y(entry.lower_bound) }),
    );
    this.strip(chart, left, right, bottom, H);
    this.sheet.replaceChildren(chart);
    this.mark();
  }

  /** Live bytes over the schedule. */
  strip(chart, left, right, bottom, H) {
    const { entry } = this.app,
      base = H - 18,
      height = base - bottom - 12,
      level = live => base - (height * live) / Math.max(1, entry.arena);
    let d = '';
    entry.live.forEach((live, k) => {
      const [a, b] = [this.x(k), this.x(k + 1)].map(x => Math.min(right, Math.max(left, x)));
      if (b > a) d += `${d ? 'L' : `M${a},${base}L`}${a},${level(live)}L${b},${level(live)}`;
    });
    const last = Math.min(right, this.x(entry.live.length)),
      peak = entry.live.indexOf(Math.max(...entry.live)),
      at = this.x(peak + 0.5);
    chart.append(
      svg('path', { class: 'live', d: d ? d + `L${last},${base}Z` : '' }),
      svg('line', { class: 'mark', x1: left, x2: right, y1: level(entry.lower_bound), y2: level(entry.lower_bound) }),
      svg('text', { class: 'small', x: left - 6, y: level(entry.lower_bound) + 4, 'text-anchor': 'end' }, 'peak'),
      svg('text', { class: 'small', x: left - 6, y: base, 'text-anchor': 'end' }, 'live bytes'),
    );
    if (at >= left && at <= right)
      chart.append(svg('line', { class: 'mark', x1: at, x2: at, y1: this.area.top, y2: base }));
    const marks = ticksBetween(this.now.x0, this.now.x1, 10).filter(tick => Number.isInteger(tick));
    for (const tick of marks) {
      const x = this.x(tick),
        anchor = x > right - 8 ? 'end' : 'middle';
      chart.append(svg('text', { class: 'small', x, y: base + 14, 'text-anchor': anchor }, String(tick)));
    }
  }

  /** What was clicked: the buffer under the pointer, or the nearest within some pixels. */
  clicked(event, point) {
    // On the live bytes beneath, a click moves the play-head.
    if (point && point.y > this.area.bottom) return this.app.playHead.set(Math.floor(this.at(point.x)));
    const item = event.target.closest('[data-buffer]');
    let found = item ? Number(item.dataset.buffer) : null;
    if (point) {
      let least = NEAR;
      for (const [b, r] of this.rectangles) {
        if (r.h > 4 && r.w > 4) continue;
        const apart = Math.hypot(
          Math.max(r.x - point.x, point.x - r.x - r.w, 0),
          Math.max(r.y - point.y, point.y - r.y - r.h, 0),
        );
        if (apart < least && (found === null || apart < 2)) {
          least = apart;
          found = b;
        }
      }
    }
    this.app.choose(found === null ? null : { kind: 'buffer', id: found }, { stay: true });
  }

  /** A buffer is coloured by the kernel that writes it first. */
  roleOf(buffer) {
    if (buffer.role === 'state' || buffer.role === 'input' || !buffer.writers.length) return 'leaf';
    return this.app.entry.kernels[buffer.writers[0]].role.kind;
  }

  buffersOf(chosen) {
    const { entry } = this.app;
    switch (chosen?.kind) {
      case 'buffer':
        return [chosen.id];
      case 'kernel':
        return entry.kernels[chosen.id].reads.concat(entry.kernels[chosen.id].writes);
      case 'node':
        return entry.bufferOf.has(chosen.id) ? [entry.bufferOf.get(chosen.id)] : [];
      case 'group':
        return entry.groupKernels(chosen.id).flatMap(kernel => kernel.writes);
      case 'line':
        return lineBuffers(entry, chosen.id);
      default:
        return [];
    }
  }

  mark() {
    if (!this.elements) return;
    this.peak.mark();
    const ids = new Set(this.buffersOf(this.app.chosen)),
      found = new Set(this.app.hits.flatMap(hit => (hit.chosen.kind === 'buffer' ? [hit.chosen.id] : [])));
    this.elements.forEach((element, b) => {
      element.classList.toggle('chosen', ids.has(b));
      element.classList.toggle('found', found.has(b));
    });
  }

  reveal(chosen) {
    if (chosen?.kind !== 'buffer' || !this.area) return;
    const { offset, bytes: size, live } = this.app.entry.buffers[chosen.id];
    this.show({
      x0: Math.min(live[0], this.full.x1),
      x1: Math.min(live[1], this.full.x1),
      y0: offset,
      y1: offset + size,
    });
  }
}
