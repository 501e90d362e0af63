'use strict';
// Search: nodes, layers, kernels, buffers and lines of the program; all hits are marked, and walked through.

const MOST_LISTED = 60,
  MOST_MARKED = 4000;

class Search {
  constructor(app) {
    Object.assign(this, { app, at: 0, hits: [], all: [] });
    const input = $('search'),
      list = $('found');
    input.addEventListener('input', () => this.find(input.value));
    input.addEventListener('focus', () => {
      if (input.value) this.find(input.value);
    });
    input.addEventListener('blur', () => setTimeout(() => this.close(), 150));
    input.addEventListener('search', () => {
      if (!input.value) this.clear();
    });
    input.addEventListener('keydown', event => {
      if (event.key === 'Escape') {
        input.value = '';
        this.clear();
        this.close();
        input.blur();
      }
      if (event.key === 'Enter') {
        this.take(this.at);
      }
      if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
        event.preventDefault();
        this.at = Math.max(0, Math.min(this.listed.length - 1, this.at + (event.key === 'ArrowDown' ? 1 : -1)));
        this.paint();
      }
    });
    list.addEventListener('pointerdown', event => {
      const item = event.target.closest('li[data-at]');
      if (item) {
        event.preventDefault();
        this.take(Number(item.dataset.at));
      }
    });
    $('hit-before').addEventListener('click', () => this.walk(-1));
    $('hit-after').addEventListener('click', () => this.walk(1));
  }

  get listed() {
    return this.hits.slice(0, MOST_LISTED);
  }

  /** What is searched, made once for an entry and a stage: hits with the text that words are looked for in. */
  corpus() {
    const { app } = this,
      { entry } = app,
      stage = app.stage instanceof Stage ? app.stage : entry.last;
    if (this.known?.stage === stage) return this.known.items;
    const items = [],
      add = (chosen, name, about, hay, rank) => items.push({ chosen, name, about, hay: hay.toLowerCase(), rank });
    const source = line => (line ? `line ${line} line:${line} ${app.lines[line - 1].trim()}` : '');
    for (const node of stage.nodes) {
      const name = entry.names[node.name],
        role = roleName(node.role);
      add(
        { kind: 'node', id: name },
        name,
        `${node.op} ${node.ty}`,
        `${name} ${node.op} ${node.ty} ${role} ${scopeWords(node.scope) ?? ''} ${source(node.line)}`,
        name.length,
      );
    }
    for (const box of entry.tree(false).boxes) {
      if (!box.isGroup || !box.parent) continue;
      const words = groupWords(box);
      add(
        { kind: 'group', id: box.id },
        words,
        box.depth ? 'layer' : 'call',
        `${words} ${box.label} ${box.id.slice(2)} ${roleName(box.role)} group layer`,
        words.length - 20,
      );
    }
    for (const kernel of entry.kernels) {
      const hay = [
        `kernel ${kernel.at} #${kernel.at} k${kernel.at}`,
        kernel.name,
        kernel.words,
        kernel.kind,
        roleName(kernel.role),
      ].join(' ');
      add(
        { kind: 'kernel', id: kernel.at },
        kernel.words,
        `kernel ${kernel.at}, ${kernel.kind}`,
        hay,
        kernel.words.length,
      );
    }
    for (const buffer of entry.buffers)
      add(
        { kind: 'buffer', id: buffer.at },
        buffer.name,
        'buffer, ' + bytes(buffer.bytes),
        `${buffer.name} buffer ${buffer.ty} ${buffer.role}`,
        buffer.name.length + 500,
      );
    app.lines.forEach((line, i) => {
      if (line.trim())
        add(
          { kind: 'line', id: i + 1 },
          line.trim(),
          `line ${i + 1}`,
          `line ${i + 1} line:${i + 1} ${line.trim()}`,
          300 + i / 1000,
        );
    });
    this.known = { stage, items };
    return items;
  }

  find(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean),
      { app } = this;
    this.at = 0;
    this.step = -1;
    this.text = text;
    if (!words.length) {
      this.clear();
      return this.close();
    }
    // A number stands for itself: `kernel 1` is not kernel 12. One behind a word belongs to it: `ConvT 4` is that layer.
    const phrases = [];
    for (const word of words) {
      const before = phrases[phrases.length - 1];
      if (/^\d+$/.test(word) && /^[a-z]+$/.test(before ?? '')) phrases[phrases.length - 1] = `${before} ${word}`;
      else phrases.push(word);
    }
    const tests = phrases.map(phrase =>
      /^([a-z]+ |#|k|line:)?\d+$/.test(phrase)
        ? new RegExp(`(^|[^\\w])${phrase}($|[^\\w])`)
        : { test: hay => hay.includes(phrase) },
    );
    const exact =
      words.length === 2 && words[0] === 'kernel' ? Number(words[1]) : Number((/^[#k](\d+)$/.exec(words[0]) ?? [])[1]);
    this.hits = this.corpus().filter(item => tests.every(test => test.test(item.hay)));
    const whole = text.trim().toLowerCase(),
      isMeant = item =>
        item.chosen.kind === 'kernel'
          ? item.chosen.id === exact
          : item.chosen.kind === 'node' && item.name.toLowerCase() === whole;
    const rank = item => (isMeant(item) ? -1000 : item.rank);
    this.hits.sort((a, b) => rank(a) - rank(b));
    app.setHits(this.hits.slice(0, MOST_MARKED));
    this.paint();
    this.tell();
  }

  tell() {
    $('hits').hidden = !this.hits.length;
    $('hit-count').textContent = `${this.step >= 0 ? `${this.step + 1} of ` : ''}${this.hits.length}`;
  }

  paint() {
    const list = $('found');
    list.hidden = false;
    $('search').setAttribute('aria-expanded', 'true');
    list.replaceChildren(
      ...this.listed.map((hit, i) =>
        html(
          'li',
          { role: 'option', 'data-at': i, 'aria-selected': i === this.at, title: hit.name },
          html('span', {}, clip(hit.name, 64)),
          html('small', {}, hit.about),
        ),
      ),
    );
    if (!this.hits.length) list.append(html('li', {}, 'nothing at this stage'));
    else if (this.hits.length > MOST_LISTED)
      list.append(html('li', {}, html('small', {}, `and ${this.hits.length - MOST_LISTED} more, all marked`)));
    list.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }

  close() {
    $('found').hidden = true;
    $('search').setAttribute('aria-expanded', 'false');
  }

  clear() {
    this.hits = [];
    this.step = -1;
    this.app.setHits([]);
    this.tell();
  }

  take(at) {
    if (!this.hits[at]) return;
    this.close();
    $('search').blur();
    this.step = at;
    this.go();
  }

  walk(by) {
    const n = this.hits.length;
    if (!n) return;
    this.step = ((this.step < 0 ? (by > 0 ? -1 : 0) : this.step) + by + n) % n;
    this.go();
  }

  go() {
    const { chosen } = this.hits[this.step],
      { app } = this;
    this.tell();
    if (chosen.kind === 'kernel' && app.tab === 'memory') app.tab = 'kernels';
    app.choose(chosen);
  }
}

/** A group's name in words, with the call around it. */
function groupWords(box) {
  if (box.depth === 0) return box.label;
  const back = box.role.kind === 'gradient' ? ', backward' : box.role.kind === 'optimiser' ? ', update' : '';
  const scope = box.id.slice(2).replace(box.role.kind === 'gradient' ? `${box.role.of}:` : '\n', '');
  return (scopeWords(scope) ?? box.label) + back;
}
