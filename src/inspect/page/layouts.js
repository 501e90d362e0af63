'use strict';
// Asks for layouts: from a worker, so that the page stays alive, and of each only once.

const SLOW = 300; // milliseconds after which one is told that it takes longer
const MOST_KEPT = 40; // layouts

class Layouts {
  constructor(notice) {
    this.notice = notice;
    this.kept = new Map();
    this.known = new Set(); // trees that the worker has
    this.serial = 0;
    this.running = null;
    this.waiting = null;
    try {
      // A page from a file may load no other file, but a worker from its own text.
      const text = ['dagre', 'layout'].map(name => document.getElementById('script-' + name).textContent).join('\n');
      const address = URL.createObjectURL(new Blob([text, '\nserveLayouts(self);'], { type: 'text/javascript' }));
      this.worker = new Worker(address);
      this.worker.onmessage = ({ data }) => this.take(data.result);
      this.worker.onerror = event => {
        event.preventDefault();
        this.without();
      };
    } catch {
      this.without();
    }
  }

  /** Goes on in the page itself, where workers are forbidden. */
  without() {
    this.worker = null;
    this.trees = new Map();
    if (this.running) this.send(this.running);
  }

  /** Calls `done` with the layout: at once where it is known, else later, unless another is asked for before. */
  ask(tree, open, done) {
    const key = `${tree.id}:${open}`,
      kept = this.kept.get(key);
    this.waiting = null;
    if (kept) {
      if (this.running) this.running.done = null;
      this.told();
      this.kept.delete(key);
      this.kept.set(key, kept);
      return done(kept);
    }
    document.documentElement.dataset.busy = 'yes';
    this.timer ??= setTimeout(() => {
      this.notice.hidden = false;
    }, SLOW);
    const wanted = { tree, open, key, done };
    if (this.running?.key === key) this.running.done = done;
    else if (this.running) {
      this.running.done = null;
      this.waiting = wanted;
    } else this.send(wanted);
  }

  send(wanted) {
    this.running = wanted;
    const { tree, open } = wanted;
    if (!this.worker) {
      if (!this.trees.has(tree.id)) this.trees.set(tree.id, new TreeLayout(tree.plain()));
      setTimeout(() => this.take(this.trees.get(tree.id).layout(open)), 0);
      return;
    }
    if (!this.known.has(tree.id)) {
      this.known.add(tree.id);
      this.worker.postMessage({ id: tree.id, tree: tree.plain() });
    }
    this.worker.postMessage({ id: tree.id, open, serial: ++this.serial });
  }

  take(result) {
    const { key, done } = this.running;
    this.running = null;
    this.kept.set(key, result);
    if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    if (this.waiting) {
      const next = this.waiting;
      this.waiting = null;
      this.send(next);
      return;
    }
    this.told();
    if (done) done(result);
  }

  told() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.notice.hidden = true;
    delete document.documentElement.dataset.busy;
  }
}
