'use strict';
// The page: which runs are shown, how the curves are drawn, keys, and the address that tells it all.

class App {
  constructor() {
    this.runs = DATA.runs.map((run, i) => new Run(run, i));
    this.axis = 'step';
    this.log = false;
    this.smooth = 0;
    this.curves = new Curves($('curves'), this);
    this.samples = new Samples($('samples'), this);
    this.chips = this.runs.map(run => {
      const chip = html('button', { class: 'run', run: run.colour, title: `${run.folder}: show or hide it`, 'aria-pressed': 'true', onclick: () => this.toggle(run) },
        html('i', { class: 'dot' }), html('b', {}, run.name));
      return chip;
    });
    $('runs').append(...this.chips);
    notesList($('notes'), this.runs);
    this.drawSettings = settingsTable($('settings'), this.runs);
    new Programs($('programs'), this.runs);
    this.restore();
    this.listen();
  }

  shown() { return this.runs.filter(run => run.shown); }

  listen() {
    $('axis').addEventListener('click', event => { if (event.target.dataset.axis) this.setAxis(event.target.dataset.axis); });
    $('log').addEventListener('change', () => { this.log = $('log').checked; this.draw(); });
    $('smooth').addEventListener('input', () => { this.smooth = Number($('smooth').value); this.draw(); });
    $('whole').addEventListener('click', () => this.curves.show(null));
    $('theme').addEventListener('click', () => this.setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'));
    $('help').addEventListener('click', () => $('keys').showModal());
    document.addEventListener('keydown', event => this.key(event));
    window.addEventListener('hashchange', () => { if (location.hash !== this.hash) this.restore(); });
    window.addEventListener('resize', () => {
      clearTimeout(this.resizing);
      this.resizing = setTimeout(() => this.curves.draw(), 100);
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $('keys').open) return;
    const { tagName, type } = event.target;
    if (/^(SELECT|TEXTAREA)$/.test(tagName)) return;
    // A slider or a box keeps the keys that move it.
    if (tagName === 'INPUT' && (type === 'range' ? /^(Arrow|Home|End|Page)/ : /^ $/).test(event.key)) return;
    if (event.key === ' ' && /^(BUTTON|SUMMARY)$/.test(tagName)) return;
    const acts = {
      '?': () => $('keys').showModal(), t: () => $('theme').click(), l: () => $('log').click(),
      x: () => { const names = Object.keys(AXES); this.setAxis(names[(names.indexOf(this.axis) + 1) % names.length]); },
      0: () => this.curves.show(null), ' ': () => this.samples.toggle(),
      ',': () => this.samples.move(-1), '.': () => this.samples.move(1),
      Escape: () => this.curves.point(null),
    };
    const run = /^[1-9]$/.test(event.key) ? this.runs[Number(event.key) - 1] : null;
    if (run) acts[event.key] = () => this.toggle(run);
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  }

  setAxis(axis) {
    this.axis = axis;
    this.curves.cursor = null;
    // A range of one axis means nothing on another.
    this.curves.range = null;
    $('whole').hidden = true;
    this.draw();
  }

  setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem('gcc-gan-theme', theme); } catch { /* a page from a file may have no storage */ }
  }

  toggle(run) {
    run.shown = !run.shown;
    this.draw();
  }

  draw() {
    for (const button of $('axis').children) button.setAttribute('aria-pressed', button.dataset.axis === this.axis);
    $('log').checked = this.log;
    $('smooth').value = this.smooth;
    $('smooth-value').textContent = String(this.smooth);
    this.chips.forEach((chip, i) => chip.setAttribute('aria-pressed', this.runs[i].shown));
    this.curves.draw();
    this.samples.draw();
    figuresTable($('figures'), this.runs);
    this.drawSettings();
    this.remember();
  }

  // The address, so that a link shows the same.
  remember() {
    const parts = [];
    if (this.axis !== 'step') parts.push(`x=${this.axis}`);
    if (this.log) parts.push('log=1');
    if (this.smooth) parts.push(`smooth=${this.smooth}`);
    if (this.samples.step !== null && this.samples.step !== this.samples.steps.at(-1)) parts.push(`step=${this.samples.step}`);
    const hidden = this.runs.filter(run => !run.shown).map(run => run.index + 1);
    if (hidden.length) parts.push(`hide=${hidden.join('.')}`);
    this.hash = parts.length ? `#${parts.join('&')}` : '';
    if (location.hash !== this.hash) history.replaceState(null, '', this.hash || location.pathname + location.search);
  }

  restore() {
    const found = new URLSearchParams(location.hash.slice(1));
    this.axis = found.get('x') in AXES ? found.get('x') : 'step';
    this.log = found.get('log') === '1';
    this.smooth = Math.max(0, Math.min(0.99, Number(found.get('smooth')) || 0));
    const hidden = (found.get('hide') ?? '').split('.').map(Number);
    for (const run of this.runs) run.shown = !hidden.includes(run.index + 1);
    const step = Number(found.get('step') ?? NaN);
    if (this.samples.steps.includes(step)) this.samples.step = step;
    this.draw();
  }
}

let theme = null;
try { theme = localStorage.getItem('gcc-gan-theme'); } catch { /* a page from a file may have no storage */ }
document.documentElement.dataset.theme = theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
window.app = new App();
document.documentElement.dataset.ready = '1';
