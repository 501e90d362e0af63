'use strict';
// A step on one line of time, measured or predicted, memory under it, and other measured steps as lanes.

const LONGER = 1.5; // times its median, from which a launch is an outlier
const WORTH = 0.001; // of the step, below which it does not matter
const LANE = 20,
  MAIN = 76,
  MEMORY = 96,
  LANE_GAP = 6; // pixels in a low window; in a high one they are higher
const TALLEST = 2.6; // times as high as that
const UPRIGHT = 60; // pixels of width from which a bar's name is level

class TimelineView extends ZoomedChart {
  constructor(host, app) {
    super(host, app, 'x');
  }

  draw() {
    const { entry } = this.app,
      { profile } = entry;
    this.elements = new Map();
    if (!profile) {
      this.predicted();
      return;
    }
    const length = launches => Math.max(...launches.map(([, start, time]) => start + time));
    this.lanes = profile.lanes.map(({ step, launches }, at) => ({
      step,
      launches,
      length: length(launches),
      typical: at === profile.typical,
    }));
    this.lanes.sort((a, b) => b.typical - a.typical || a.step - b.step);
    this.setFull(Math.max(...this.lanes.map(lane => lane.length)), 1);
    const launches = this.lanes.reduce((sum, lane) => sum + lane.launches.length, 0);
    const outliers = this.lanes.reduce(
      (sum, lane) => sum + lane.launches.filter(launch => this.excess(launch)).length,
      0,
    );
    this.head.replaceChildren(
      html(
        'p',
        { class: 'note row' },
        html(
          'span',
          {},
          `A typical step of ${profile.steps}: ${time(profile.step.seconds)} on ${profile.device}, `,
          'the live bytes under it',
          this.lanes.length > 1 ? `, and ${this.lanes.length - 1} other steps. ` : '. ',
          outliers
            ? html(
                'span',
                { class: 'outlier' },
                `▾ marks what took over ${LONGER} times the median of its kernel: ${outliers} of ${launches}`,
              )
            : '',
        ),
        html('span', { class: 'grow' }),
        this.zoomButtons(),
      ),
    );
    this.paint();
  }

  /** Without a measurement: every kernel with the least time that the ceilings allow, one after the other. */
  predicted() {
    const { entry } = this.app,
      clock = clockOf(entry);
    const launches = entry.kernels.map((_, k) => [k, clock.starts[k], clock.lengths[k]]);
    this.lanes = [{ step: null, launches, length: clock.total, typical: true }];
    this.setFull(Math.max(clock.total, 1), 1);
    this.head.replaceChildren(
      html(
        'p',
        { class: 'note row' },
        html(
          'span',
          {},
          `Predicted: ${time(clock.total / 1e6)}, each kernel with the least time that the ceilings of ${CEILINGS_OF} `,
          'allow. Nothing was measured; these two commands bring times in:',
        ),
        html('span', { class: 'grow' }),
        this.zoomButtons(),
      ),
      html(
        'pre',
        {},
        `gcc-gan profile ${DATA.arguments} --entry ${this.app.entry.name} --steps 20 -o step.json\n`,
        `gcc-gan inspect ${DATA.arguments} --profile step.json -o ${DATA.program}.html`,
      ),
    );
    this.paint();
  }

  /** How many times its median a launch took, where that is much and matters; else nothing. */
  excess([k, , length]) {
    const { profile, kernels } = this.app.entry;
    if (!profile) return 0;
    const median = kernels[k].time.median_seconds * 1e6;
    return length > LONGER * median && length - median > WORTH * profile.step.seconds * 1e6 ? length / median : 0;
  }

  paint() {
    const { entry } = this.app;
    if (!this.lanes[0]?.launches.length) return this.sheet.replaceChildren();
    const W = Math.max(300, this.sheet.clientWidth),
      others = this.lanes.length - 1,
      least = MAIN + MEMORY + others * (LANE + LANE_GAP),
      room = this.sheet.clientHeight - 46,
      by = Math.max(1, Math.min(TALLEST, room / least));
    const main = Math.round(MAIN * by),
      lane = Math.round((LANE + LANE_GAP) * by),
      memory = Math.max(MEMORY, room - main - others * lane),
      H = 38 + main + memory + others * lane;
    this.area = { left: 84, right: W - 10, top: 26, bottom: 26 + main };
    const { left, right } = this.area,
      { now } = this;
    const chart = svg('svg', { class: 'chart', width: W, height: H, role: 'group', 'aria-label': 'Timeline' });
    chart.append(
      svg('defs', {}, svg('clipPath', { id: 'times' }, svg('rect', { x: left, y: 0, width: right - left, height: H }))),
    );
    let told = -Infinity;
    for (const tick of ticksBetween(now.x0, now.x1, 10, (right - left) / 150)) {
      const x = this.x(tick),
        text = time(tick / 1e6),
        half = (textWidth(text) * SMALL_TEXT) / 2,
        middle = Math.min(x, W - half - 2);
      chart.append(
        svg('line', { class: 'grid', x1: x, x2: x, y1: 18, y2: H }),
        middle - half > told ? svg('text', { class: 'small', x: middle, y: 12, 'text-anchor': 'middle' }, text) : '',
      );
      told = Math.max(told, middle - half > told ? middle + half + 4 : told);
    }
    const lines = svg('g', { 'clip-path': 'url(#times)' });
    chart.append(lines);
    this.elements = new Map();
    const [typical, ...rest] = this.lanes;
    const label = (text, y, small) =>
      chart.append(svg('text', { class: 'small' + (small ? ' dim' : ''), x: left - 8, y, 'text-anchor': 'end' }, text));
    this.lane(lines, typical, 26, main, true);
    label(typical.step === null ? 'predicted' : `step ${typical.step + 1}`, 26 + main / 2, false);
    label(time(typical.length / 1e6), 26 + main / 2 + 14, false);
    this.memory(lines, typical, 26 + main + 10, memory - 20);
    label('live bytes', 26 + main + memory - 10, false);
    label(bytes(Math.max(...entry.live)), 26 + main + 18, false);
    rest.forEach((other, i) => {
      const y = 26 + main + memory + 12 + i * lane;
      this.lane(lines, other, y, lane - LANE_GAP, false);
      label(`${other.step + 1}  ${time(other.length / 1e6)}`, y + (lane - LANE_GAP) / 2 + 4, true);
    });
    this.sheet.replaceChildren(chart);
    this.mark();
  }

  lane(into, lane, y, height, isMain) {
    const { entry } = this.app,
      { left, right } = this.area;
    let before = -Infinity;
    for (const launch of lane.launches) {
      const [k, start, length] = launch,
        x = this.x(start),
        end = this.x(start + length),
        excess = this.excess(launch);
      if (end < left || x > right) continue;
      // Far more launches than pixels: those that would be no pixel wide and stand where one is already.
      if (end < before + 0.7 && !excess) continue;
      before = end;
      const kernel = entry.kernels[k],
        width = Math.max(0.7, end - x);
      const bar = svg(
        'rect',
        {
          class: 'item ' + kernel.role.kind + (excess ? ' late' : ''),
          x,
          y,
          width,
          height,
          'data-kernel': k,
          tabindex: -1,
        },
        svg(
          'title',
          {},
          `${k} ${kernel.words}\n${kernel.name}\n${time(length / 1e6)} from ${time(start / 1e6)}`,
          excess ? `\n${excess.toFixed(1)} times its median, ${time(kernel.time.median_seconds)}` : '',
        ),
      );
      push(this.elements, k, bar);
      into.append(bar);
      if (excess) into.append(svg('path', { class: 'late-mark', d: `M${x + width / 2 - 4},${y - 6}h8l-4,6z` }));
      const room = Math.min(end, right) - Math.max(x, left) - 8,
        fits = line => textWidth(line) * SMALL_TEXT <= room;
      // Of a narrow bar that is high, along it.
      if (isMain && room >= 5 && room < UPRIGHT && height > 2 * UPRIGHT) {
        const at = Math.max(x, left) + room / 2 + 8,
          along = fitted(kernel.words, height - 12);
        const turned = { class: 'small', transform: `translate(${at},${y + height - 6}) rotate(-90)` };
        into.append(svg('text', { ...turned, 'pointer-events': 'none' }, along));
        continue;
      }
      if (room < 20) continue;
      const text = { class: 'small', x: Math.max(x, left) + 4, 'pointer-events': 'none' },
        name = fitted(kernel.words, room);
      if (name) into.append(svg('text', { ...text, y: isMain ? y + 18 : y + height / 2 + 4 }, name));
      if (!isMain) continue;
      const part = kernel.time ? percent(kernel.time.of_ceiling) : '',
        whole = part && `${part} of ceiling`;
      [time(length / 1e6), fits(whole) ? whole : part].forEach((line, i) => {
        if (fits(line)) into.append(svg('text', { ...text, y: y + 34 + 16 * i }, line));
      });
    }
  }

  memory(into, lane, y, height) {
    const { live } = this.app.entry,
      most = Math.max(1, ...live),
      base = y + height;
    let d = `M${this.x(0)},${base}`;
    for (const [k, start, length] of lane.launches) {
      const level = base - (height * live[k]) / most;
      d += `L${this.x(start)},${level}L${this.x(start + length)},${level}`;
    }
    into.append(svg('path', { class: 'live', d: d + `L${this.x(lane.length)},${base}Z` }));
  }

  clicked(event, point) {
    // On the axis, a click moves the play-head.
    if (point && this.area && point.y < this.area.top - 4) return this.app.playHead.seek(Math.max(0, this.at(point.x)));
    const item = event.target.closest('[data-kernel]');
    this.app.choose(item ? { kind: 'kernel', id: Number(item.dataset.kernel) } : null, { stay: true });
  }

  mark() {
    const { entry, chosen, hits } = this.app,
      marked = kernelsOf(entry, chosen),
      found = new Set(hits.flatMap(hit => (hit.chosen.kind === 'kernel' ? [hit.chosen.id] : [])));
    this.elements?.forEach((bars, k) =>
      bars.forEach(bar => {
        bar.classList.toggle('chosen', marked.has(k));
        bar.classList.toggle('found', found.has(k));
      }),
    );
  }

  reveal(chosen) {
    if (!this.lanes?.length || !this.area) return;
    const marked = kernelsOf(this.app.entry, chosen),
      launch = this.lanes[0].launches.find(([k]) => marked.has(k));
    if (launch) this.show({ x0: launch[1], x1: launch[1] + launch[2], y0: 0, y1: 1 });
  }
}
