'use strict';
// A plane that is moved and zoomed: by dragging, the wheel, two fingers and keys.

const LEAST_SCALE = 0.01,
  MOST_SCALE = 4;
const READABLE = 0.9, // the least scale at which all text can be read
  LARGE = 1.2; // the most that something is enlarged by itself

class Canvas {
  constructor(host, label) {
    this.host = host;
    this.svg = svg('svg', { class: 'canvas', role: 'application', 'aria-label': label });
    this.world = svg('g');
    // Arrows of one size, whatever the line, and in the colour of what is chosen for its edges.
    const head = id => {
      const at = { id, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: 'auto' };
      return svg('marker', { ...at, markerUnits: 'userSpaceOnUse' }, svg('path', { d: 'M0,0.5 L8,4 L0,7.5 z' }));
    };
    this.svg.append(svg('defs', {}, head('head'), head('head-near')), this.world);
    this.view = { x: 0, y: 0, scale: 1 };
    this.listen();
  }

  listen() {
    let from = null,
      moved = false;
    const pointers = new Map();
    const at = event => {
      const box = this.svg.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    this.svg.addEventListener(
      'wheel',
      event => {
        event.preventDefault();
        const sideways = event.shiftKey && !event.ctrlKey;
        if (sideways) this.moveBy(-(event.deltaY || event.deltaX), 0);
        else this.zoomAt(at(event), Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)));
      },
      { passive: false },
    );
    this.svg.addEventListener('pointerdown', event => {
      pointers.set(event.pointerId, at(event));
      from = { ...at(event), view: { ...this.view } };
      moved = false;
    });
    this.svg.addEventListener('pointermove', event => {
      if (!pointers.has(event.pointerId)) return;
      const now = at(event),
        before = pointers.get(event.pointerId);
      if (pointers.size === 2) {
        const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
        const apart = p => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
        this.zoomAt({ x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 }, apart(now) / apart(before));
        moved = true;
      } else if (from && (moved || Math.hypot(now.x - from.x, now.y - from.y) > 4)) {
        if (!moved) {
          this.svg.setPointerCapture(event.pointerId);
          this.svg.classList.add('moving');
        }
        moved = true;
        this.moveTo({ ...this.view, x: from.view.x + now.x - from.x, y: from.view.y + now.y - from.y });
      }
      pointers.set(event.pointerId, now);
    });
    const up = event => {
      pointers.delete(event.pointerId);
      from = null;
      this.svg.classList.remove('moving');
    };
    this.svg.addEventListener('pointerup', up);
    this.svg.addEventListener('pointercancel', up);
    this.svg.addEventListener('click', event => {
      if (!moved) this.clicked(event, this.onPlane(at(event)));
    });
    this.svg.addEventListener('dblclick', event => this.clickedTwice(event, this.onPlane(at(event))));
  }

  get size() {
    const { width, height } = this.svg.getBoundingClientRect();
    return { width, height };
  }

  onPlane(point) {
    const { x, y, scale } = this.view;
    return { x: (point.x - x) / scale, y: (point.y - y) / scale };
  }

  /** The part of the plane on the screen. */
  get region() {
    const { width, height } = this.size,
      { x, y } = this.onPlane({ x: 0, y: 0 }),
      { scale } = this.view;
    return { x, y, w: width / scale, h: height / scale };
  }

  moveTo(view) {
    cancelAnimationFrame(this.gliding);
    this.view = view;
    this.world.setAttribute('transform', `translate(${view.x},${view.y}) scale(${view.scale})`);
    this.moved();
  }

  moveBy(dx, dy) {
    this.moveTo({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  /** Goes there within a quarter of a second; at once for those who want nothing to move. */
  glideTo(view) {
    if (CALM.matches) return this.moveTo(view);
    const from = this.view,
      start = performance.now();
    const step = now => {
      const part = Math.min(1, (now - start) / 240),
        eased = 1 - (1 - part) ** 3;
      const between = key => from[key] + (view[key] - from[key]) * eased;
      this.moveTo({ x: between('x'), y: between('y'), scale: between('scale') });
      if (part < 1) this.gliding = requestAnimationFrame(step);
    };
    cancelAnimationFrame(this.gliding);
    this.gliding = requestAnimationFrame(step);
  }

  zoomBy(factor) {
    const { width, height } = this.size;
    this.zoomAt({ x: width / 2, y: height / 2 }, factor);
  }

  zoomAt(point, factor) {
    const scale = Math.min(MOST_SCALE, Math.max(LEAST_SCALE, this.view.scale * factor)),
      by = scale / this.view.scale;
    this.moveTo({ x: point.x - (point.x - this.view.x) * by, y: point.y - (point.y - this.view.y) * by, scale });
  }

  /** Shows all of `extent` where it can be read then (or is wanted all the same), else its top at a size that can. */
  fitTo(extent, whole) {
    const { width, height } = this.size,
      { x, y, w, h } = extent,
      margin = 20;
    let scale = Math.min(LARGE, (width - 2 * margin) / w, (height - 2 * margin) / h);
    const part = !whole && scale < READABLE;
    if (part) scale = Math.min(LARGE, Math.max(READABLE, (width - 2 * margin) / w));
    this.moveTo({
      scale,
      x: part && w * scale > width - 2 * margin ? margin - x * scale : (width - w * scale) / 2 - x * scale,
      y: part && h * scale > height - 2 * margin ? margin - y * scale : (height - h * scale) / 2 - y * scale,
    });
  }
}

const CALM = matchMedia('(prefers-reduced-motion: reduce)');
