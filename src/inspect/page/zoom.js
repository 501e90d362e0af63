'use strict';
// Charts with a window on what they show, that the wheel, dragging, keys and a double click move.

class ZoomedChart {
  constructor(host, app, axes) {
    Object.assign(this, { host, app, axes });
    this.head = html('div', { class: 'chart-head' });
    this.sheet = html('div', { class: 'chart-sheet' });
    host.append(this.head, this.sheet);
    this.full = { x0: 0, x1: 1, y0: 0, y1: 1 };
    this.now = { ...this.full };
    this.listen();
  }

  /** The whole that can be seen; the window is kept where the whole is as it was. */
  setFull(x1, y1) {
    if (this.full.x1 === x1 && this.full.y1 === y1) return;
    this.full = { x0: 0, x1, y0: 0, y1 };
    this.now = { ...this.full };
  }

  listen() {
    let from = null,
      moved = false;
    const at = event => {
      const box = this.sheet.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    this.sheet.addEventListener(
      'wheel',
      event => {
        event.preventDefault();
        if (event.shiftKey && !event.ctrlKey) return this.panBy(event.deltaY || event.deltaX, 0);
        this.zoomAt(at(event), Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)));
      },
      { passive: false },
    );
    this.sheet.addEventListener('pointerdown', event => {
      from = { ...at(event), now: { ...this.now } };
      moved = false;
    });
    this.sheet.addEventListener('pointermove', event => {
      if (!from || !event.buttons) return;
      const to = at(event);
      if (!moved && Math.hypot(to.x - from.x, to.y - from.y) < 4) return;
      if (!moved) this.sheet.setPointerCapture(event.pointerId);
      moved = true;
      this.now = { ...from.now };
      this.panBy(from.x - to.x, from.y - to.y);
    });
    this.sheet.addEventListener('pointerup', () => {
      from = null;
    });
    this.sheet.addEventListener('click', event => {
      if (!moved) this.clicked(event, at(event));
    });
    this.sheet.addEventListener('dblclick', () => this.fit());
    this.sheet.addEventListener('keydown', event => {
      if (event.key === 'Enter') this.clicked(event, null);
    });
  }

  // Places on the sheet, by what is shown

  x(at) {
    return this.area.left + ((at - this.now.x0) / (this.now.x1 - this.now.x0)) * (this.area.right - this.area.left);
  }

  y(at) {
    return this.area.bottom - ((at - this.now.y0) / (this.now.y1 - this.now.y0)) * (this.area.bottom - this.area.top);
  }

  /** What is shown at a place across. */
  at(x) {
    const { left, right } = this.area;
    return this.now.x0 + ((x - left) / (right - left)) * (this.now.x1 - this.now.x0);
  }

  zoomBy(factor) {
    const { left, right, top, bottom } = this.area;
    this.zoomAt({ x: (left + right) / 2, y: (top + bottom) / 2 }, 1 / factor);
  }

  zoomAt(point, factor) {
    const { left, right, top, bottom } = this.area,
      { x0, x1, y0, y1 } = this.now;
    const part = (v, from, to) => Math.min(1, Math.max(0, (v - from) / (to - from)));
    const px = x0 + part(point.x, left, right) * (x1 - x0),
      py = y0 + (1 - part(point.y, top, bottom)) * (y1 - y0);
    this.now.x0 = px - (px - x0) * factor;
    this.now.x1 = px + (x1 - px) * factor;
    if (this.axes === 'xy') {
      this.now.y0 = py - (py - y0) * factor;
      this.now.y1 = py + (y1 - py) * factor;
    }
    this.within();
  }

  /** Moves the window by pixels. */
  panBy(dx, dy) {
    const { left, right, top, bottom } = this.area,
      { now } = this;
    const bx = (dx / (right - left)) * (now.x1 - now.x0),
      by = (-dy / (bottom - top)) * (now.y1 - now.y0);
    now.x0 += bx;
    now.x1 += bx;
    if (this.axes === 'xy') {
      now.y0 += by;
      now.y1 += by;
    }
    this.within();
  }

  /** Keeps the window inside the whole, and not smaller than is of use. */
  within() {
    for (const [a, b] of [
      ['x0', 'x1'],
      ['y0', 'y1'],
    ]) {
      const whole = this.full[b] - this.full[a],
        length = Math.min(whole, Math.max(whole / 1e8, this.now[b] - this.now[a]));
      const start = Math.min(this.full[b] - length, Math.max(this.full[a], this.now[a]));
      this.now[a] = start;
      this.now[b] = start + length;
    }
    this.soon();
  }

  fit() {
    this.now = { ...this.full };
    this.soon();
  }

  soon() {
    this.app.hover?.hide();
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.paint();
      this.app.playHead.show();
    });
  }

  /** Shows a part with something around it, where it is not in the window or too small in it. */
  show({ x0, x1, y0, y1 }) {
    const { now } = this,
      wide = this.x(x1) - this.x(x0),
      seen = x1 > now.x0 && x0 < now.x1 && (this.axes === 'x' || (y1 > now.y0 && y0 < now.y1));
    if (seen && wide > 3 && (this.axes === 'x' || this.y(y0) - this.y(y1) > 3)) return;
    const about = (a, b, least) => {
      const r = Math.max((b - a) * 4, Math.min((b - a) * 60, least));
      return [(a + b) / 2 - r, (a + b) / 2 + r];
    };
    [now.x0, now.x1] = about(x0, x1, (this.full.x1 - this.full.x0) / 40);
    if (this.axes === 'xy') [now.y0, now.y1] = about(y0, y1, 0);
    this.within();
  }

  zoomButtons() {
    const button = (text, label, act) => html('button', { 'aria-label': label, title: label, onclick: act }, text);
    return html(
      'span',
      { class: 'zoom' },
      button('−', 'Smaller (−)', () => this.zoomBy(1 / 1.5)),
      button('+', 'Larger (+)', () => this.zoomBy(1.5)),
      button('⤢', 'The whole (0, double click)', () => this.fit()),
    );
  }
}

/** Round numbers between two, some `wanted` of them; `radix` is 1024 for bytes. */
function ticksBetween(from, to, radix, wanted = 6) {
  const rough = (to - from) / wanted,
    power = radix ** Math.floor(Math.log(Math.max(rough, 1e-12)) / Math.log(radix));
  let step = power;
  const factors = radix === 1024 ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512] : [1, 2, 5];
  for (const factor of factors) if (power * factor <= rough) step = power * factor;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return found;
}
