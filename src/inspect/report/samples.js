'use strict';
// The sample images over the training: all runs at one step, with play.

class Samples {
  constructor(root, app) {
    this.app = app;
    this.steps = [...new Set(app.runs.flatMap(run => run.samples.map(sample => sample.step)))].sort((a, b) => a - b);
    this.step = this.steps.length ? this.steps.at(-1) : null;
    this.timer = null;
    if (!this.steps.length) {
      root.append(html('h2', {}, 'Samples', html('small', {}, 'no sample images were made')));
      return;
    }
    const parts = app.runs.filter(run => run.samples.length < run.all_samples)
      .map(run => `${run.samples.length} of the ${thousands(run.all_samples)} of ${run.name}`);
    this.slider = html('input', { type: 'range', id: 'sample', min: 0, max: this.steps.length - 1, step: 1, 'aria-label': 'Step of the samples', oninput: () => { this.stop(); this.set(Number(this.slider.value)); } });
    this.play = html('button', { id: 'play', onclick: () => this.toggle() }, '▶ play');
    this.speed = html('select', { id: 'speed', 'aria-label': 'Pictures a second', onchange: () => { if (this.timer) { this.stop(); this.start(); } } },
      [2, 4, 8, 16].map(n => html('option', { value: n, selected: n === 8 }, `${n} a second`)));
    this.told = html('output', { id: 'sample-step', for: 'sample' });
    this.grids = html('div', { id: 'grids', class: app.runs.length > 1 ? 'several' : null });
    this.figures = app.runs.filter(run => run.samples.length).map(run => {
      const caption = html('span', { class: 'dim' });
      const image = html('img', { alt: `Samples of ${run.name}`, onload: event => this.size(event.target) });
      return { run, caption, image, figure: html('figure', { 'data-run': run.index }, html('figcaption', {}, run.label(), caption), image) };
    });
    root.append(html('h2', {}, 'Samples', html('small', {}, parts.length ? `${parts.join(', ')} are here` : '')),
      html('div', { class: 'player' }, this.play, this.slider, this.told, this.speed), this.grids);
    this.grids.append(...this.figures.map(each => each.figure));
    this.draw();
  }

  // Small grids are shown larger, by a whole number, so that pixels stay square.
  size(image) {
    const most = this.figures.length > 1 ? 400 : 560;
    image.style.width = `${image.naturalWidth * Math.max(1, Math.floor(most / image.naturalWidth))}px`;
  }

  set(index) {
    this.step = this.steps[Math.max(0, Math.min(this.steps.length - 1, index))];
    this.draw();
    this.app.curves.charts.forEach(chart => chart.drawOver());
    this.app.remember();
  }

  move(by) { if (this.steps.length) { this.stop(); this.set(this.steps.indexOf(this.step) + by); } }

  // To the samples nearest to a step.
  showAt(step) {
    if (!this.steps.length) return;
    this.stop();
    const i = Math.max(0, lastBelow(this.steps, step));
    this.set(i + 1 < this.steps.length && this.steps[i + 1] - step < step - this.steps[i] ? i + 1 : i);
  }

  toggle() { if (this.timer) this.stop(); else this.start(); }

  start() {
    if (this.steps.length < 2) return;
    if (this.step === this.steps.at(-1)) this.set(0);
    this.play.textContent = '❚❚ pause';
    this.timer = setInterval(() => {
      const next = this.steps.indexOf(this.step) + 1;
      if (next < this.steps.length) this.set(next);
      if (next >= this.steps.length - 1) this.stop();
    }, 1000 / Number(this.speed.value));
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    if (this.play) this.play.textContent = '▶ play';
  }

  // Each run shows its last samples until the step.
  draw() {
    if (!this.steps.length) return;
    this.slider.value = this.steps.indexOf(this.step);
    this.slider.setAttribute('aria-valuetext', `step ${thousands(this.step)}`);
    this.told.textContent = `step ${thousands(this.step)}`;
    for (const { run, caption, image, figure: box } of this.figures) {
      const i = lastBelow(run.samples.map(sample => sample.step), this.step);
      box.hidden = !run.shown;
      image.hidden = i < 0;
      caption.textContent = i < 0 ? 'none yet' : `step ${thousands(run.samples[i].step)}`;
      const source = i < 0 ? '' : `data:image/png;base64,${run.samples[i].png}`;
      if (i >= 0 && image.src !== source) image.src = source;
    }
  }
}
