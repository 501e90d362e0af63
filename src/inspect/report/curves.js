'use strict';
// The curves: a chart for each metric, with one axis and one line of values through all of them.

const MARGIN = { left: 54, right: 12, top: 10, bottom: 22 };
const HEIGHT = 210;

// The mean of all values so far, each value weighing `weight` times the one after it, as an estimate that does not lean to 0
// at the start (Kingma and Ba 2015, section 3).
function smoothed(values, weight) {
  if (!weight) return values;
  let [mean, sum] = [0, 0];
  return values.map(value => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return mean / sum;
  });
}

class Chart {
  constructor(name, curves) {
    Object.assign(this, { name, curves, app: curves.app });
    this.now = html('span', { class: 'now' });
    this.remark = html('p', { class: 'remark', hidden: true });
    this.svg = svg('svg', { class: 'plot', tabindex: 0, role: 'img', 'aria-label': `Curve of ${name}: left and right arrow keys go through its values` });
    this.tip = html('div', { class: 'tip', hidden: true, role: 'status' });
    this.card = html('div', { class: 'card', 'data-metric': name }, html('h3', {}, html('b', { title: name }, name), this.now), this.remark, this.svg, this.tip);
    this.listen();
  }

  listen() {
    const at = event => this.toX(event.clientX - this.svg.getBoundingClientRect().left);
    let from = null;
    this.svg.addEventListener('pointerdown', event => {
      if (event.button) return;
      from = { x: at(event), client: event.clientX, range: [...this.range], pans: event.shiftKey };
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener('pointermove', event => {
      if (from && from.pans) {
        const [low, high] = from.range;
        const by = (from.client - event.clientX) * (high - low) / this.width;
        return this.curves.show(low + by, high + by);
      }
      this.curves.point(at(event), this);
      this.mark(from ? [from.x, at(event)] : null);
    });
    this.svg.addEventListener('pointerup', event => {
      if (!from) return;
      const [a, b] = [from.x, at(event)].sort((x, y) => x - y);
      const far = Math.abs(event.clientX - from.client);
      const pans = from.pans;
      from = null;
      this.mark(null);
      if (pans) return;
      if (far > 6) this.curves.show(a, b);
      else if (far < 3) this.app.samples.showAt(this.stepNear(a));
    });
    this.svg.addEventListener('pointercancel', () => { from = null; this.mark(null); });
    this.svg.addEventListener('pointerleave', () => { if (!from) this.curves.point(null); });
    this.svg.addEventListener('dblclick', () => this.curves.show(null));
    this.svg.addEventListener('wheel', event => {
      if (!event.ctrlKey && !event.altKey) return;
      event.preventDefault();
      this.curves.zoom(Math.exp(event.deltaY * 0.002), at(event));
    }, { passive: false });
    this.svg.addEventListener('keydown', event => this.key(event));
    this.svg.addEventListener('blur', () => this.curves.point(null));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 10 : 1;
    const middle = () => this.curves.cursor ?? (this.range[0] + this.range[1]) / 2;
    const acts = {
      ArrowLeft: () => this.walk(-far), ArrowRight: () => this.walk(far), Home: () => this.walk(-Infinity), End: () => this.walk(Infinity),
      '+': () => this.curves.zoom(1 / 1.6, middle()), '=': () => this.curves.zoom(1 / 1.6, middle()), '-': () => this.curves.zoom(1.6, middle()),
      Escape: () => this.curves.point(null),
      Enter: () => this.app.samples.showAt(this.stepNear(middle())),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  // To the value so many further on, of the run with most of them.
  walk(by) {
    const lines = this.lines.filter(line => line.xs.length);
    if (!lines.length) return;
    const { xs } = lines.reduce((a, b) => (b.xs.length > a.xs.length ? b : a));
    const here = this.curves.cursor === null ? (by < 0 ? xs.length : -1) : lastBelow(xs, this.curves.cursor + 1e-9 * Math.abs(this.curves.cursor));
    const x = xs[Math.max(0, Math.min(xs.length - 1, here + by))];
    const [low, high] = this.range;
    if (x < low || x > high) this.curves.show(x - (high - low) / 2, x + (high - low) / 2);
    this.curves.point(x, this);
  }

  toX(pixel) {
    const [low, high] = this.range;
    return Math.max(low, Math.min(high, low + (pixel - MARGIN.left) / this.width * (high - low)));
  }

  x(value) { return MARGIN.left + (value - this.range[0]) / (this.range[1] - this.range[0]) * this.width; }

  // A step near a place on the axis, of the first run that is shown.
  stepNear(x) {
    const run = this.app.shown()[0];
    if (!run || this.app.axis === 'step') return x;
    const i = lastBelow(run[AXES[this.app.axis].of], x);
    return i < 0 ? 0 : run.steps[i];
  }

  // What there is to draw: for each run the places, the values and the smoothed values, and where it was not finite.
  collect() {
    const { axis, log, smooth } = this.app;
    this.lines = [];
    this.hidden = 0;
    for (const run of this.app.shown()) {
      const series = run.metrics.get(this.name);
      if (!series) continue;
      const all = run[AXES[axis].of];
      const [xs, ys, steps, lost] = [[], [], [], []];
      series.values.forEach((value, i) => {
        const line = series.at ? series.at[i] : i;
        const x = all[line];
        if (x === null) return;
        if (value === null) lost.push(x);
        if (value !== null && log && value <= 0) { this.hidden++; value = null; }
        xs.push(x); ys.push(value); steps.push(run.steps[line]);
      });
      this.lines.push({ run, xs, ys, steps, lost, smooth: smoothed(ys, smooth) });
    }
  }

  draw(range) {
    this.collect();
    this.range = range;
    this.width = Math.max(60, this.card.clientWidth - 24 - MARGIN.left - MARGIN.right);
    const { axis, log } = this.app;
    const height = HEIGHT - MARGIN.top - MARGIN.bottom;
    let [low, high] = [Infinity, -Infinity];
    for (const { xs, ys } of this.lines) {
      xs.forEach((x, i) => {
        if (ys[i] === null || x < range[0] || x > range[1]) return;
        low = Math.min(low, ys[i]); high = Math.max(high, ys[i]);
      });
    }
    const isEmpty = low > high;
    if (isEmpty) [low, high] = log ? [0.1, 1] : [0, 1];
    if (log) {
      if (high / low < 1.0001) { low *= 0.8; high *= 1.25; }
      const rim = (high / low) ** 0.04;
      low /= rim; high *= rim;
    } else {
      const rim = high > low ? (high - low) * 0.05 : Math.abs(high) * 0.1 || 1;
      // Nothing below 0 is shown of what is never negative.
      low = low >= 0 && low - rim < 0 ? 0 : low - rim;
      high += rim;
    }
    const scale = log ? Math.log : y => y;
    this.y = value => MARGIN.top + height * (1 - (scale(value) - scale(low)) / (scale(high) - scale(low)));
    const [right, bottom] = [MARGIN.left + this.width, HEIGHT - MARGIN.bottom];
    const back = [];
    for (const tick of log ? logTicks(low, high) : ticks(low, high, 4)) {
      const y = this.y(tick);
      back.push(svg('line', { class: 'grid', x1: MARGIN.left, x2: right, y1: y, y2: y }), svg('text', { x: MARGIN.left - 7, y: y + 4, 'text-anchor': 'end' }, figure(tick)));
    }
    const count = Math.max(2, Math.floor(this.width / 85));
    let end = -Infinity;
    for (const tick of axis === 'time' ? timeTicks(...range, count) : ticks(...range, count, AXES[axis].whole)) {
      const x = this.x(tick);
      const text = AXES[axis].text(tick);
      const half = text.length * 3.3;
      back.push(svg('line', { class: 'base', x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      if (x - half < end + 6 || x + half > right + MARGIN.right + 2) continue;
      end = x + half;
      back.push(svg('text', { x, y: bottom + 17, 'text-anchor': 'middle' }, text));
    }
    back.push(svg('line', { class: 'base', x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }));
    const clip = `clip-${this.curves.charts.indexOf(this)}`;
    const inside = svg('g', { 'clip-path': `url(#${clip})` });
    for (const line of this.lines) {
      const { run } = line;
      inside.append(...run.resumes.map(resume => this.resume(run, resume, bottom)).filter(Boolean));
      if (this.app.smooth) inside.append(svg('path', { class: 'raw', run: run.colour, d: this.path(line.xs, line.ys) }));
      inside.append(svg('path', { class: run.dashed ? 'dashed' : null, run: run.colour, d: this.path(line.xs, line.smooth) }));
      line.smooth.forEach((value, i) => {
        const is = j => line.smooth[j] !== null && line.smooth[j] !== undefined;
        if (is(i) && !is(i - 1) && !is(i + 1)) inside.append(svg('circle', { class: 'only', run: run.colour, cx: this.x(line.xs[i]), cy: this.y(value), r: 2.4 }));
      });
      for (const x of line.lost) inside.append(svg('line', { class: 'lost', x1: this.x(x), x2: this.x(x), y1: bottom - 7, y2: bottom }, svg('title', {}, `${run.name}: not finite`)));
    }
    this.over = svg('g', {});
    this.svg.setAttribute('viewBox', `0 0 ${right + MARGIN.right} ${HEIGHT}`);
    this.svg.replaceChildren(
      svg('clipPath', { id: clip }, svg('rect', { x: MARGIN.left - 3, y: 0, width: this.width + 6, height: bottom + 1 })), ...back, inside, this.over);
    if (isEmpty) this.svg.append(svg('text', { x: MARGIN.left + this.width / 2, y: HEIGHT / 2, 'text-anchor': 'middle' }, 'nothing to show here'));
    this.remark.hidden = !this.hidden;
    this.remark.textContent = `${thousands(this.hidden)} value${this.hidden === 1 ? '' : 's'} of 0 or less not shown on a log scale`;
    this.drawOver();
  }

  resume(run, resume, bottom) {
    const x = this.x(run.at(resume.step, this.app.axis));
    if (!(x >= MARGIN.left && x <= MARGIN.left + this.width)) return null;
    return svg('g', { class: 'resume', run: run.colour }, svg('line', { x1: x, x2: x, y1: MARGIN.top - 4, y2: bottom }),
      svg('path', { d: `M${x - 4} ${MARGIN.top - 8}h8l-4 6z` }), svg('title', {}, `${run.name}: ${resume.about}`));
  }

  // A line through the values. Where there are more than pixels, each pixel has its first, lowest, highest and last.
  path(xs, ys) {
    const parts = [];
    let [pen, column, held] = [false, null, []];
    const put = i => {
      parts.push(`${pen ? 'L' : 'M'}${this.x(xs[i]).toFixed(1)} ${this.y(ys[i]).toFixed(1)}`);
      pen = true;
    };
    const flush = () => {
      if (held.length <= 4) held.forEach(put);
      else {
        const by = (a, b) => ys[a] - ys[b];
        const few = new Set([held[0], held.reduce((a, b) => (by(a, b) <= 0 ? a : b)), held.reduce((a, b) => (by(a, b) >= 0 ? a : b)), held.at(-1)]);
        [...few].sort((a, b) => a - b).forEach(put);
      }
      held = [];
    };
    // One value on each side of the range, so that lines reach its rim.
    const from = Math.max(0, lastBelow(xs, this.range[0]));
    const to = Math.min(xs.length - 1, lastBelow(xs, this.range[1]) + 1);
    for (let i = from; i <= to; i++) {
      if (ys[i] === null) { flush(); pen = false; column = null; continue; }
      const here = Math.floor(this.x(xs[i]));
      if (here !== column) { flush(); column = here; }
      held.push(i);
    }
    flush();
    return parts.join('');
  }

  // The line of values, the samples' step, and what is at the line.
  drawOver() {
    if (!this.over) return;
    const bottom = HEIGHT - MARGIN.bottom;
    this.over.replaceChildren();
    const { step } = this.app.samples;
    const run = this.app.shown().find(r => r.samples.length);
    if (step !== null && run) {
      const x = this.x(run.at(step, this.app.axis));
      if (x >= MARGIN.left - 1 && x <= MARGIN.left + this.width + 1) {
        this.over.append(svg('line', { class: 'at-sample', x1: x, x2: x, y1: MARGIN.top, y2: bottom }), svg('path', { class: 'diamond', d: `M${x - 5} ${bottom}l5 -5l5 5l-5 5z` }));
      }
    }
    const { cursor } = this.curves;
    const values = this.lines.map(line => {
      let i = cursor === null ? line.xs.length - 1 : lastBelow(line.xs, cursor);
      // The nearer of the two neighbours.
      if (cursor !== null && i + 1 < line.xs.length && (i < 0 || line.xs[i + 1] - cursor < cursor - line.xs[i])) i++;
      return { ...line, i };
    }).filter(({ i }) => i >= 0);
    if (cursor !== null && cursor >= this.range[0] && cursor <= this.range[1]) {
      const x = this.x(cursor);
      this.over.append(svg('line', { class: 'cursor', x1: x, x2: x, y1: MARGIN.top, y2: bottom }));
      for (const { run: of, xs, smooth, i } of values) {
        if (smooth[i] !== null && xs[i] >= this.range[0] && xs[i] <= this.range[1]) this.over.append(svg('circle', { run: of.colour, cx: this.x(xs[i]), cy: this.y(smooth[i]), r: 4 }));
      }
    }
    const value = ({ ys, i }) => (ys[i] === null && this.app.log ? '≤ 0 or not finite' : figure(ys[i]));
    this.now.replaceChildren(...values.slice(0, 4).map(of => html('span', { run: of.run.colour, title: of.run.name }, value(of))));
    const isHere = cursor !== null && this.curves.pointed === this && values.length > 0;
    this.tip.hidden = !isHere;
    if (!isHere) return;
    this.tip.replaceChildren(html('table', {}, values.map(of => html('tr', {},
      html('td', {}, of.run.label()), html('td', {}, value(of)),
      this.app.smooth && of.smooth[of.i] !== null ? html('td', { class: 'dim' }, `smooth ${figure(of.smooth[of.i])}`) : null,
      html('td', { class: 'dim' }, `step ${thousands(of.steps[of.i])}${this.app.axis === 'step' ? '' : `, ${AXES[this.app.axis].text(of.xs[of.i])}`}`)))));
    const side = this.x(cursor) > MARGIN.left + this.width / 2;
    this.tip.style.left = side ? 'auto' : `${this.x(cursor) + 24}px`;
    this.tip.style.right = side ? `${MARGIN.left + this.width + MARGIN.right - this.x(cursor) + 24}px` : 'auto';
  }

  // The part that is being chosen with the pointer.
  mark(part) {
    this.drawn?.remove();
    this.drawn = null;
    if (!part) return;
    const [a, b] = part.map(x => this.x(x)).sort((x, y) => x - y);
    this.drawn = svg('rect', { class: 'drawn', x: a, y: MARGIN.top, width: b - a, height: HEIGHT - MARGIN.top - MARGIN.bottom });
    this.svg.append(this.drawn);
  }
}

class Curves {
  constructor(root, app) {
    this.app = app;
    this.range = null;
    this.cursor = null;
    this.pointed = null;
    const names = [...new Set(app.runs.flatMap(run => run.series.map(series => series.name)))];
    const rate = names.indexOf('images_per_second');
    if (rate >= 0) names.push(...names.splice(rate, 1));
    this.charts = [];
    names.forEach(name => this.charts.push(new Chart(name, this)));
    const thinned = app.runs.filter(run => run.every > 1).map(run => `${run.name}: 1 of each ${thousands(run.every)} of its ${thousands(run.lines)} lines`);
    root.append(html('h2', {}, 'Curves', html('small', {}, names.length ? thinned.join('; ') : 'no metrics were written yet')),
      html('div', { id: 'charts' }, this.charts.map(chart => chart.card)));
  }

  // From where to where the axis goes when all is shown.
  whole() {
    let [low, high] = [Infinity, -Infinity];
    for (const run of this.app.shown()) {
      for (const x of run[AXES[this.app.axis].of]) {
        if (x === null) continue;
        low = Math.min(low, x); high = Math.max(high, x);
      }
    }
    if (low > high) return [0, 1];
    if (low < (high - low) * 0.1) low = 0;
    return high > low ? [low, high] : [low - 1, high + 1];
  }

  show(low, high) {
    const whole = this.whole();
    if (low === null || high - low >= whole[1] - whole[0]) this.range = null;
    else {
      // At least a thousandth of all, and within it.
      const least = (whole[1] - whole[0]) / 1000;
      const width = Math.max(high - low, least);
      const from = Math.max(whole[0], Math.min(whole[1] - width, (low + high - width) / 2));
      this.range = [from, from + width];
    }
    $('whole').hidden = !this.range;
    this.draw();
  }

  zoom(by, around) {
    const [low, high] = this.range ?? this.whole();
    this.show(around - (around - low) * by, around + (high - around) * by);
  }

  point(x, chart = null) {
    this.cursor = x;
    this.pointed = chart;
    this.charts.forEach(each => each.drawOver());
  }

  draw() {
    const range = this.range ?? this.whole();
    this.charts.forEach(chart => chart.draw(range));
  }
}
