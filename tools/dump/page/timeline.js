// SPDX-License-Identifier: Apache-2.0
/* The time line: where each moment stands, what part is in view, and the hand on it.
 *
 * T1. Two scales: by order, every moment as wide as every other; by time, as the clock went, which
 *     never goes back. `places` has the place of each moment, 0 to the number of moments.
 * T2. The tracks are drawn when the view, the filter or the colours change; a step draws only the
 *     cursor, on a canvas of its own.
 * Knows nothing of what the tracks show: tracks.js does. */
"use strict";

const GUTTER = 64, MARGIN = 14;
const ZOOM = 1.25; // per notch of the wheel
const LANE_HIGH = 12;
const IN_VIEW_MIN = 8; // moments

class Timeline {
  constructor(app) {
    this.app = app;
    this.box = byId("timeline");
    this.canvas = byId("tracks");
    this.cursor = byId("cursor");
    this.isByTime = false;
    this.size = app.past.moments.length;
    this.from = 0;
    this.to = this.size;
    this.layOut();
    this.place();
    this.cursor.setAttribute("aria-valuemax", this.size - 1);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /* Tops and heights of the tracks. */
  layOut() {
    const lanes = this.app.lanes.length;
    const tops = { axis: 0, lives: 18, changes: 44, lanes: 98,
                   log: 98 + lanes * LANE_HIGH + 8 };
    this.tops = { ...tops, end: tops.log + 40 };
    this.box.style.height = `${this.tops.end + 8}px`;
  }

  place() {
    const { moments } = this.app.past;
    const first = moments.find((moment) => moment.time)?.time ?? 0;
    let latest = first;
    const times = moments.map((moment) => (latest = Math.max(latest, moment.time)) - first);
    const whole = times[times.length - 1] || 1;
    this.places = Float64Array.from(moments, (moment, index) => (this.isByTime
      ? times[index] / whole * (this.size - 0.5) + 0.25 : index + 0.5));
  }

  get width() {
    return Math.max(this.box.clientWidth - GUTTER - MARGIN, 50);
  }

  x(place) {
    return GUTTER + (place - this.from) / (this.to - this.from) * this.width;
  }

  placeAt(x) {
    return this.from + (x - GUTTER) / this.width * (this.to - this.from);
  }

  /* The moment nearest to a place. */
  momentAt(place) {
    const at = lastUpTo(this.places, place);
    if (at < 0) return 0;
    const next = Math.min(at + 1, this.size - 1);
    return this.places[next] - place < place - this.places[at] ? next : at;
  }

  /* The first and last moment in view. */
  inView() {
    return [Math.max(lastUpTo(this.places, this.from), 0),
            Math.min(lastUpTo(this.places, this.to) + 1, this.size - 1)];
  }

  setScale(isByTime) {
    this.isByTime = isByTime;
    this.place();
    this.view(0, this.size);
  }

  view(from, to) {
    const span = Math.min(Math.max(to - from, Math.min(IN_VIEW_MIN, this.size)), this.size);
    this.from = Math.min(Math.max(from, 0), this.size - span);
    this.to = this.from + span;
    this.draw();
  }

  /* Closer for a factor below 1, around a place that stays where it is. */
  zoom(factor, place = this.places[this.app.moment.index]) {
    const share = (place - this.from) / (this.to - this.from);
    const span = (this.to - this.from) * factor;
    this.view(place - share * span, place + (1 - share) * span);
  }

  draw() {
    prepareCanvas(this.canvas, this.box.clientWidth, this.tops.end + 4);
    drawTracks(this);
    this.show();
  }

  /* The hand, and the view that follows it. */
  show() {
    const { moment } = this.app, place = this.places[moment.index];
    if (place < this.from || place > this.to) {
      const span = this.to - this.from;
      this.view(place - span / 2, place + span / 2);
      return;
    }
    const pen = prepareCanvas(this.cursor, this.box.clientWidth, this.tops.end + 4);
    const x = Math.round(this.x(place)) + 0.5;
    const width = this.width / (this.to - this.from);
    pen.fillStyle = colour("hand-soft");
    if (!this.isByTime && width > 3 && this.size > 1) {
      pen.fillRect(x - width / 2, this.tops.lives, width, this.tops.end - this.tops.lives);
    }
    pen.strokeStyle = pen.fillStyle = colour("hand");
    pen.beginPath();
    pen.moveTo(x, this.tops.lives - 4);
    pen.lineTo(x, this.tops.end);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x - 5, this.tops.lives - 8);
    pen.lineTo(x + 5, this.tops.lives - 8);
    pen.lineTo(x, this.tops.lives - 1);
    pen.fill();
    this.cursor.setAttribute("aria-valuenow", moment.index);
    this.cursor.setAttribute("aria-valuetext",
      `record ${moment.sequence}, ${titleOf(moment)}, ${timeText(moment.time)}`);
  }

  listen() {
    const { cursor } = this;
    const slide = (event) => this.app.go(this.momentAt(this.placeAt(event.offsetX)));
    cursor.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      cursor.setPointerCapture(event.pointerId);
      slide(event);
    });
    cursor.addEventListener("pointermove", (event) => {
      if (cursor.hasPointerCapture(event.pointerId)) slide(event);
      this.hint(event);
    });
    cursor.addEventListener("pointerleave", () => { byId("tip").hidden = true; });
    cursor.addEventListener("wheel", (event) => {
      event.preventDefault();
      const sideways = event.shiftKey ? event.deltaY : event.deltaX;
      if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
        const by = sideways / this.width * (this.to - this.from);
        this.view(this.from + by, this.to + by);
      } else {
        this.zoom(event.deltaY < 0 ? 1 / ZOOM : ZOOM, this.placeAt(event.offsetX));
      }
    }, { passive: false });
  }

  /* What is under the pointer. */
  hint(event) {
    const tip = byId("tip"), { moments } = this.app.past;
    const moment = moments[this.momentAt(this.placeAt(event.offsetX))];
    tip.hidden = event.offsetX < GUTTER;
    tip.replaceChildren(
      make("span", "seq", `${moment.sequence}`), make("span", "time", timeText(moment.time)),
      make("span", "who", askerOf(moment)), make("b", "", titleOf(moment)),
      make("span", "gist", gistOf(moment)));
    const left = Math.min(event.offsetX + 12, this.box.clientWidth - tip.offsetWidth - 8);
    tip.style.transform = `translate(${Math.max(left, 4)}px, ${this.tops.end + 4}px)`;
  }
}

/* A canvas of that size in CSS pixels, empty; returns its pen. */
function prepareCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}
