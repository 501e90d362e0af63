'use strict';
// Rate over intensity, both logarithmic, of every kernel under the ceilings of the machine.

class Roofline {
  constructor(app) {
    this.app = app;
  }

  /** The chart as wide as that many pixels. */
  draw(width) {
    const { entry } = this.app,
      machine = DATA.machine;
    const W = Math.max(420, Math.min(1100, width - 28)),
      H = width < 720 ? 200 : 270,
      left = 66,
      right = 16,
      top = 14,
      bottom = 34;
    const kernels = entry.kernels.filter(k => k.flops && k.bytes);
    const rate = k => k.flops / (k.time ? k.time.seconds : k.ceiling);
    const floor10 = v => Math.floor(Math.log10(v)),
      ceil10 = v => Math.ceil(Math.log10(v));
    const ridge = machine.flops_per_second / machine.bytes_per_second;
    const x0 = Math.min(-2, ...kernels.map(k => floor10(k.intensity))),
      x1 = Math.max(ceil10(ridge) + 1, ...kernels.map(k => ceil10(k.intensity)));
    const y1 = ceil10(machine.flops_per_second),
      y0 = Math.max(y1 - 7, Math.min(y1 - 3, ...kernels.map(k => floor10(rate(k)))));
    const x = v => left + ((W - left - right) * (Math.log10(v) - x0)) / (x1 - x0);
    const y = v => top + (H - top - bottom) * (1 - (Math.max(y0, Math.log10(v)) - y0) / (y1 - y0));
    const roof = y(machine.flops_per_second);
    const busy = entry.profile?.busy ? ` The machine was busy: ${entry.profile.busy}; ceilings may be too low.` : '';
    const chart = svg('svg', {
      class: 'chart',
      viewBox: `0 0 ${W} ${H}`,
      role: 'group',
      'aria-label': 'Roofline',
      style: `max-width:${W}px`,
    });
    for (let e = x0; e <= x1; e++) {
      chart.append(
        svg('line', { class: 'grid', x1: x(10 ** e), x2: x(10 ** e), y1: top, y2: H - bottom }),
        svg(
          'text',
          { class: 'small', x: x(10 ** e), y: H - bottom + 14, 'text-anchor': 'middle' },
          e < 0 ? (10 ** e).toFixed(-e) : String(10 ** e),
        ),
      );
    }
    for (let e = y0; e <= y1; e++) {
      chart.append(
        svg('line', { class: 'grid', x1: left, x2: W - right, y1: y(10 ** e), y2: y(10 ** e) }),
        svg('text', { class: 'small', x: left - 6, y: y(10 ** e) + 4, 'text-anchor': 'end' }, count(10 ** e)),
      );
    }
    chart.append(
      svg('text', { class: 'small', x: (left + W - right) / 2, y: H - 4, 'text-anchor': 'middle' }, 'FLOP / byte'),
      svg('text', { class: 'small', x: left + 6, y: top + 12 }, 'FLOP/s'),
      svg('path', {
        class: 'roof',
        d: `M${x(10 ** x0)},${y(machine.bytes_per_second * 10 ** x0)}L${x(ridge)},${roof}H${x(10 ** x1)}`,
      }),
      svg(
        'text',
        { class: 'small', x: W - right, y: y(machine.flops_per_second) - 5, 'text-anchor': 'end' },
        `${(machine.flops_per_second / 1e9).toFixed(0)} GFLOP/s, ${(machine.bytes_per_second / 1e9).toFixed(0)} GB/s `,
        entry.profile ? 'measured' : 'assumed',
      ),
    );
    this.points = new Map();
    for (const kernel of kernels) {
      const weight = entry.profile
        ? kernel.time.share
        : kernel.ceiling / entry.kernels.reduce((sum, k) => sum + k.ceiling, 0);
      const point = svg(
        'circle',
        {
          class: 'item ' + kernel.role.kind,
          cx: x(kernel.intensity),
          cy: y(rate(kernel)),
          r: 4 + (22 * Math.sqrt(weight)) / 2,
          'fill-opacity': 0.75,
          tabindex: -1,
          'data-kernel': kernel.at,
        },
        svg(
          'title',
          {},
          `${kernel.at} ${kernel.words}\n`,
          `${kernel.intensity.toFixed(2)} FLOP/byte, ${(rate(kernel) / 1e9).toFixed(1)} GFLOP/s`,
        ),
      );
      point.addEventListener('click', () => this.app.choose({ kind: 'kernel', id: kernel.at }, { stay: true }));
      this.points.set(kernel.at, point);
      chart.append(point);
    }
    return html(
      'div',
      {},
      html(
        'p',
        { class: 'note' },
        entry.profile
          ? 'Measured rate of each kernel under the ceilings of its machine; area by share of time.' + busy
          : 'Not measured: each kernel at the ceiling that binds it, which is the least time it can take. ' +
              '`gcc-gan profile` measures; `gcc-gan inspect --profile` shows it here.',
      ),
      chart,
    );
  }
}
