'use strict';
// Rate over intensity, both logarithmic, of kernels or layers under the ceilings of the machine.

// Ceilings of kernels that move as much as memory could in a launch's time, and this many times less.
const LAUNCH_PARTS = [1, 32];
const LEAST_MOVED = 64; // bytes: nothing is moved in smaller pieces

// Whose ceilings a machine may have.
const CACHES = { second_level: 'second-level', last_level: 'last-level' };

/** Matrix products that have a ceiling of their own. */
const ofProducts = machine =>
  ['tf32', 'bf16'].map(name => ({ name, flops: machine[`${name}_flops_per_second`] })).filter(({ flops }) => flops);

class Roofline {
  /** Of kernels, or of points that stand for several: { flops, bytes, seconds, role, title, choose }. */
  constructor(app, points = null, what = 'each kernel') {
    this.app = app;
    this.what = what;
    this.items = (points ?? kernelPoints(app)).filter(p => p.flops && p.bytes);
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
    const { items } = this,
      rate = p => p.flops / p.seconds,
      intensity = p => p.flops / p.bytes;
    const floor10 = v => Math.floor(Math.log10(v)),
      ceil10 = v => Math.ceil(Math.log10(v));
    const ridge = machine.flops_per_second / machine.bytes_per_second;
    const x0 = Math.min(-2, ...items.map(p => floor10(intensity(p)))),
      x1 = Math.max(ceil10(ridge) + 1, ...items.map(p => ceil10(intensity(p))));
    const most = Math.max(machine.flops_per_second, ...ofProducts(machine).map(({ flops }) => flops)),
      y1 = ceil10(most),
      y0 = Math.max(y1 - 7, Math.min(y1 - 3, ...items.map(p => floor10(rate(p)))));
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
        CEILINGS_OF.split(' ')[1],
      ),
    );
    chart.append(...this.ceilings({ x, y, x0, x1, y0, left, right: W - right, top }));
    this.points = new Map();
    const all = items.reduce((sum, p) => sum + p.seconds, 0);
    for (const item of items) {
      const point = svg(
        'circle',
        {
          class: 'item ' + item.role,
          cx: x(intensity(item)),
          cy: y(rate(item)),
          r: 4 + (22 * Math.sqrt(item.seconds / all)) / 2,
          'fill-opacity': 0.75,
          tabindex: -1,
          ...(item.kernel === undefined ? {} : { 'data-kernel': item.kernel }),
        },
        svg(
          'title',
          {},
          `${item.title}\n`,
          `${intensity(item).toFixed(2)} FLOP/byte, ${(rate(item) / 1e9).toFixed(1)} GFLOP/s, ${time(item.seconds)}`,
        ),
      );
      point.addEventListener('click', item.choose);
      this.points.set(item.kernel ?? item, point);
      chart.append(point);
    }
    return html(
      'div',
      {},
      html(
        'p',
        { class: 'note' },
        entry.profile
          ? `Measured rate of ${this.what} under the ceilings of its machine; area by share of time. ` +
              `${this.lines}${busy}`
          : `Not measured: ${this.what} at the ceiling that binds it, which is the least time it can take. ` +
              this.lines +
              '`gcc-gan profile` measures; `gcc-gan inspect --profile` shows it here.',
      ),
      chart,
    );
  }

  /** Besides memory and arithmetic: launches, which bind what is small, products of fewer bits, and how fast caches were seen to be. */
  ceilings({ x, y, x0, x1, y0, left, right, top }) {
    const machine = DATA.machine,
      parts = [];
    this.lines = '';
    const path = (kind, rate) => {
      let d = '';
      for (let i = 0; i <= 60; i++) {
        const e = x0 + ((x1 - x0) * i) / 60,
          r = rate(10 ** e);
        if (Math.log10(r) >= y0) d += `${d ? 'L' : 'M'}${x(10 ** e).toFixed(1)},${y(r).toFixed(1)}`;
      }
      if (d) parts.push(svg('path', { class: 'ceiling ' + kind, d }));
    };
    const label = (text, at, rate, anchor = 'end') =>
      parts.push(svg('text', { class: 'small', x: at, y: y(rate) - 4, 'text-anchor': anchor }, text));
    const { launch_seconds: launch, bytes_per_second: memory, flops_per_second: flops } = machine;
    if (launch > 0) {
      const even = launch * memory;
      for (const times of LAUNCH_PARTS) {
        const moved = even / times;
        if (moved < LEAST_MOVED) continue;
        const rate = i => (i * moved) / (launch + Math.max(moved / memory, (i * moved) / flops));
        path('launches', rate);
        const at = 10 ** (x0 + 0.3 * (x1 - x0));
        if (Math.log10(rate(at)) > y0)
          parts.push(svg('text', { class: 'small', x: x(at) + 6, y: y(rate(at)) + 12 }, `${bytes(moved)} a launch`));
      }
      this.lines =
        `Dashed: launches of ${time(launch)} bind what moves little; one of ${bytes(even)} takes as long as ` +
        'its launch. ';
    }
    for (const { name, flops: roof } of ofProducts(machine)) {
      path('products', i => Math.min(i * memory, roof));
      label(`${name}: ${count(roof)}FLOP/s`, right, roof);
    }
    const faster = rate => rate > 1.05 * memory,
      gigabytes = rate => `${(rate / 1e9).toFixed(0)} GB/s`;
    const dotted = rates => {
      const most = Math.max(flops, ...ofProducts(machine).map(({ flops }) => flops));
      for (const rate of rates) path('cache', i => Math.min(i * rate, most));
      // Above the first line, and far enough to the right for the words.
      const text = `${rates.map(rate => (rate / 1e9).toFixed(0)).join(' and ')} GB/s, from caches`,
        at = x0 + ((textWidth(text) + 20) * (x1 - x0)) / (right - left);
      label(text, x(10 ** at), rates[0] * 10 ** at);
    };
    const levels = Object.entries(CACHES)
      .map(([level, name]) => ({ name, rate: machine.caches?.[level] }))
      .filter(({ rate }) => faster(rate))
      .sort((a, b) => b.rate - a.rate);
    const timed = this.app.entry.kernels.filter(k => k.time && k.bytes);
    const fastest = timed.reduce((a, b) => (a && a.bytes / a.time.seconds >= b.bytes / b.time.seconds ? a : b), null),
      rate = fastest && fastest.bytes / fastest.time.seconds;
    if (levels.length) {
      dotted(levels.map(({ rate }) => rate));
      this.lines +=
        `Dotted: what fits a cache is moved faster than memory allows, as measured: ` +
        `${levels.map(({ name, rate }) => `${gigabytes(rate)} in the ${name} cache`).join(', ')}. `;
    } else if (faster(rate)) {
      dotted([rate]);
      this.lines += 'Dotted: what is in a cache is read faster than memory. The ceilings of caches are not measured. ';
    }
    if (fastest)
      this.lines += faster(rate)
        ? `Kernel ${fastest.at} moved most in its time, ${gigabytes(rate)}. `
        : 'No kernel moved its bytes faster than memory can. ';
    return parts;
  }
}

/** Every kernel as a point. */
function kernelPoints(app) {
  return app.entry.kernels.map(kernel => ({
    kernel: kernel.at,
    flops: kernel.flops,
    bytes: kernel.bytes,
    seconds: kernel.time ? kernel.time.seconds : kernel.ceiling,
    role: kernel.role.kind,
    title: `${kernel.at} ${kernel.words}`,
    choose: () => app.choose({ kind: 'kernel', id: kernel.at }, { stay: true }),
  }));
}
