'use strict';
// The play-head: one position in the step, shown at once in every view, and the bar that moves it.

const STRETCHED = 10_000; // milliseconds that a step takes when it is played
const LONGEST_FRAME = 100; // milliseconds: a page that was hidden goes on where it was

/** When each kernel of an entry runs, in microseconds from the step's start: as measured, else at the ceilings. */
class StepClock {
  constructor(entry) {
    const { profile, kernels } = entry,
      lane = profile?.lanes[profile.typical];
    this.measured = Boolean(lane);
    this.starts = new Float64Array(kernels.length).fill(-1);
    this.lengths = new Float64Array(kernels.length);
    for (const [k, start, length] of lane?.launches ?? []) {
      this.starts[k] = start;
      this.lengths[k] = length;
    }
    let end = 0;
    kernels.forEach((kernel, k) => {
      if (this.starts[k] < 0) {
        this.starts[k] = end;
        this.lengths[k] = lane ? 0 : 1e6 * kernel.ceiling;
      }
      end = Math.max(end, this.starts[k] + this.lengths[k]);
    });
    this.total = end;
    // Streams and threads may start kernels in another order than the schedule's.
    this.order = kernels.map((_, k) => k).sort((a, b) => this.starts[a] - this.starts[b] || a - b);
  }

  /** The kernel that started last. */
  kernelAt(time) {
    let low = 0,
      high = this.order.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[this.order[middle]] <= time) low = middle;
      else high = middle - 1;
    }
    return this.order[low];
  }

  /** How much of a kernel is done, from 0 to 1. */
  part(k, time) {
    return this.lengths[k] ? Math.min(1, Math.max(0, (time - this.starts[k]) / this.lengths[k])) : 0;
  }
}

const clockOf = entry => (entry.clock ??= new StepClock(entry));

class PlayHead {
  constructor(app) {
    Object.assign(this, { app, at: null, time: 0, playing: null });
    this.track = $('head-track');
    this.cursor = html('i', { class: 'head-cursor' });
    $('head-before').addEventListener('click', () => this.step(-1));
    $('head-after').addEventListener('click', () => this.step(1));
    $('head-play').addEventListener('click', () => this.toggle());
    const seek = event => {
      const { left, width } = this.track.getBoundingClientRect();
      this.seek(Math.min(1, Math.max(0, (event.clientX - left) / width)) * this.clock.total);
    };
    this.track.addEventListener('pointerdown', event => {
      this.track.setPointerCapture(event.pointerId);
      this.pause();
      seek(event);
    });
    this.track.addEventListener('pointermove', event => {
      if (this.track.hasPointerCapture(event.pointerId)) seek(event);
    });
    this.track.addEventListener('keydown', event => {
      const last = this.app.entry.kernels.length - 1;
      const act = {
        ArrowLeft: () => this.step(-1),
        ArrowRight: () => this.step(1),
        Home: () => this.set(0),
        End: () => this.set(last),
      }[event.key];
      if (!act || event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      act();
    });
  }

  get clock() {
    return clockOf(this.app.entry);
  }

  /** To a kernel's start; nowhere for null. */
  set(at, time = null) {
    const { kernels } = this.app.entry;
    if (!kernels.length) at = null;
    this.at = at === null ? null : Math.max(0, Math.min(kernels.length - 1, at));
    this.time = this.at === null ? 0 : (time ?? this.clock.starts[this.at]);
    this.show(true);
    if (!this.playing) this.app.remember();
  }

  seek(time) {
    this.set(this.clock.kernelAt(time), time);
  }

  /** Kernel by kernel in the order of the schedule; first to one that is chosen. */
  step(by) {
    this.pause();
    if (this.at !== null) return this.set(this.at + by);
    const [chosen] = [...kernelsOf(this.app.entry, this.app.chosen)].sort((a, b) => a - b);
    this.set(chosen ?? (by > 0 ? 0 : this.app.entry.kernels.length - 1));
  }

  toggle() {
    if (this.playing) return this.pause();
    const { total } = this.clock;
    if (!total) return;
    if (this.at === null || this.time >= total) this.seek(0);
    let before = null;
    const frame = now => {
      const passed = before === null ? 0 : Math.min(LONGEST_FRAME, now - before);
      before = now;
      const to = Math.min(total, this.time + (passed / STRETCHED) * total);
      this.seek(to);
      if (to >= total) this.pause();
      else this.playing = requestAnimationFrame(frame);
    };
    this.playing = requestAnimationFrame(frame);
    this.button();
  }

  pause() {
    if (!this.playing) return;
    cancelAnimationFrame(this.playing);
    this.playing = null;
    this.button();
    this.app.remember();
  }

  /** Another entry has another step. */
  reset(at = null) {
    this.pause();
    this.at = at;
    this.time = at === null ? 0 : this.clock.starts[at];
    this.strip();
    this.button();
  }

  button() {
    const button = $('head-play'),
      what = this.playing ? 'Pause' : 'Play';
    button.textContent = this.playing ? '❚❚' : '▶';
    button.title = `${what} the step in ten seconds (\\)`;
    button.setAttribute('aria-label', what);
  }

  /** The step as a strip of its kernels in the colours of their roles, but for kernels and gaps that are too small. */
  strip() {
    const { entry } = this.app,
      { clock } = this,
      stops = [];
    $('playhead').hidden = !entry.kernels.length;
    let end = 0;
    const place = time => `${((100 * time) / Math.max(clock.total, 1e-9)).toFixed(2)}%`;
    for (const k of clock.order) {
      const from = Math.max(end, clock.starts[k]),
        to = clock.starts[k] + clock.lengths[k];
      if (to - from < clock.total / 1500) continue;
      const { kind } = entry.kernels[k].role,
        start = from - end < clock.total / 150 ? end : from;
      if (start > end) stops.push(`transparent ${place(end)} ${place(start)}`);
      stops.push(`var(--${kind}) ${place(start)} ${place(to)}`);
      end = to;
    }
    stops.push(`transparent ${place(end)} 100%`);
    this.track.style.setProperty('--kernels', `linear-gradient(to right, ${stops.join(', ')})`);
    this.track.replaceChildren(this.cursor);
    const { track } = this;
    track.setAttribute('aria-valuemin', 0);
    track.setAttribute('aria-valuemax', Math.max(0, entry.kernels.length - 1));
    track.title = clock.measured
      ? 'The kernels of a typical step, as measured'
      : 'The kernels of a step, each with the least time that the ceilings allow';
    this.words();
  }

  words() {
    const { entry } = this.app,
      { at, clock } = this,
      { profile } = entry,
      n = entry.kernels.length,
      length = time(clock.total / 1e6);
    this.said = at;
    const kernel = entry.kernels[at],
      whole = clock.measured
        ? `step ${profile.lanes[profile.typical].step + 1} of ${profile.steps}: ${length}`
        : `${many(n, 'kernel')}, ${length} predicted`;
    $('head-kernel').replaceChildren(
      ...(kernel
        ? [
            html('i', { class: 'dot swatch-' + kernel.role.kind, title: roleName(kernel.role) }),
            this.app.link({ kind: 'kernel', id: at }, kernel.words, kernel.name),
          ]
        : [html('span', { class: 'hint' }, whole)]),
    );
    $('head-at').textContent = kernel ? `kernel ${at} of 0 to ${n - 1}` : '';
    $('head-live').textContent = kernel ? `${bytes(entry.live[at])} live` : '';
    this.track.setAttribute('aria-valuenow', at ?? 0);
    this.track.setAttribute('aria-valuetext', kernel ? `kernel ${at}, ${kernel.words}` : 'nowhere');
  }

  /** Shows it in the bar and in the view that is seen; `follow` moves the view where it is out of sight. */
  show(follow = false) {
    const { at, clock } = this;
    if (this.said !== at) this.words();
    this.cursor.hidden = at === null;
    $('head-time').textContent = at === null ? '' : `${time(this.time / 1e6)} of ${time(clock.total / 1e6)}`;
    if (at !== null) this.cursor.style.left = `${(100 * this.time) / Math.max(clock.total, 1e-9)}%`;
    const { view, tab } = this.app;
    if (!this.app.stale.has(tab)) HEAD_IN[tab]?.(view, this, follow);
  }
}

/** Moves the class from the elements that had it to those that have it now. */
function markNow(view, elements) {
  for (const element of view.nowElements ?? []) element.classList.remove('now');
  view.nowElements = elements;
  for (const element of elements) element.classList.add('now');
}

/** A chart's cursor and the band of the kernel that runs, over its sheet. */
function headOver(chart, { from, to, at }, follow) {
  if (!chart.band) {
    chart.band = html('div', { class: 'head-band' });
    chart.line = html('div', { class: 'head-line' });
    chart.host.append(chart.band, chart.line);
  }
  const { band, line, area, sheet, now } = chart,
    outside = from < now.x0 || at > now.x1;
  if (follow && outside) {
    const wide = now.x1 - now.x0;
    now.x0 = from - 0.1 * wide;
    now.x1 = now.x0 + wide;
    chart.within();
  }
  const clamp = x => Math.min(area.right, Math.max(area.left, x)),
    left = clamp(chart.x(from)),
    right = clamp(chart.x(to)),
    x = chart.x(at);
  band.hidden = right - left < 2;
  line.hidden = x < area.left - 1 || x > area.right + 1;
  for (const element of [band, line]) {
    element.style.top = `${sheet.offsetTop}px`;
    element.style.height = `${sheet.clientHeight}px`;
  }
  band.style.width = `${right - left}px`;
  band.style.transform = `translateX(${sheet.offsetLeft + left}px)`;
  line.style.transform = `translateX(${sheet.offsetLeft + x - 1}px)`;
}

function hideOver(chart) {
  if (chart.band) chart.band.hidden = chart.line.hidden = true;
  markNow(chart, []);
}

/** How each view shows it. */
const HEAD_IN = {
  memory(view, head, follow) {
    const { at, clock, app } = head;
    if (at === null || !view.area) return hideOver(view);
    headOver(view, { from: at, to: at + 1, at: at + clock.part(at, head.time) }, follow);
    const { reads, writes } = app.entry.kernels[at];
    markNow(view, [...reads, ...writes].map(b => view.elements.get(b)).filter(Boolean));
  },

  timeline(view, head, follow) {
    const { at, clock } = head;
    if (at === null || !view.area) return hideOver(view);
    const from = clock.starts[at];
    headOver(view, { from, to: from + clock.lengths[at], at: head.time }, follow);
    markNow(view, view.elements?.get(at) ?? []);
  },

  kernels(view, head, follow) {
    const row = view.rows?.get(head.at),
      point = view.roofline?.points.get(head.at);
    if (view.nowElements?.[0] === row && row && (!follow || head.playing)) return;
    markNow(view, [row, point].filter(Boolean));
    if (!follow || !row) return;
    const box = row.getBoundingClientRect(),
      { top, bottom } = view.host.getBoundingClientRect();
    if (box.top < top + 30 || box.bottom > bottom) row.scrollIntoView({ block: 'center' });
  },

  source(view, head, follow) {
    const same = view.nowAt === head.at && view.nowRows === view.rows;
    if (same && (!follow || head.playing)) return;
    Object.assign(view, { nowAt: head.at, nowRows: view.rows });
    const lines = linesOf(head.app.entry, head.at === null ? null : { kind: 'kernel', id: head.at });
    const rows = [...lines.keys()].map(line => view.rows.get(line)).filter(Boolean);
    for (const [line, part] of lines) view.rows.get(line)?.style.setProperty('--now', part.toFixed(3));
    markNow(view, rows);
    if (follow) view.bring(lines);
  },

  graph(view, head, follow) {
    if (view.inOrder) {
      view.nowMarks?.remove();
      markNow(view, [view.orderElements?.get(head.at)].filter(Boolean));
      if (follow && head.at !== null) revealInSchedule(view, { kind: 'kernel', id: head.at });
      return;
    }
    headInGraph(view, head.at, follow);
  },
};

/** Frames around the boxes of the kernel that runs, over the graph: they are few, whatever is drawn below. */
function headInGraph(graph, at, follow) {
  follow ||= graph.nowFollow;
  graph.nowFollow = follow && !graph.scene;
  if (!graph.scene) return;
  graph.nowMarks ??= svg('g', { class: 'now-marks' });
  if (graph.nowMarks.parentNode !== graph.world) graph.world.append(graph.nowMarks);
  const same = graph.nowFor === graph.scene && graph.nowAt === at && graph.nowHere === graph.here;
  if (same && (!follow || graph.app.playHead.playing)) return;
  Object.assign(graph, { nowFor: graph.scene, nowAt: at, nowHere: graph.here });
  const boxes = at === null ? [] : graph.shownBoxes(graph.boxesOf({ kind: 'kernel', id: at })),
    places = boxes.map(box => graph.place(box)).filter(Boolean);
  graph.nowMarks.replaceChildren(
    ...places.map(({ x, y, w, h }) =>
      svg('rect', { x: x - 4, y: y - 4, width: w + 8, height: h + 8, rx: 8, 'vector-effect': 'non-scaling-stroke' }),
    ),
  );
  if (!follow || !places.length) return;
  const r = graph.region,
    seen = p => p.x + p.w > r.x && p.x < r.x + r.w && p.y + p.h > r.y && p.y < r.y + r.h;
  if (!places.some(seen)) graph.center(places[0]);
}
