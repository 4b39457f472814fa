// SPDX-License-Identifier: Apache-2.0
/* The circular log at the moment, as what it is: a circle. Its end goes round clockwise.
 *
 * G1. Strong colour is alive, pale is needed by a restart but overtaken, faint is history. A place
 *     that a later lap has written over is empty before that: what was there is not known any more.
 * Change with: fill.py, which counts the cells. */
"use strict";

const MAP_SIZE = 156;
const TURN_ANGLE = 2 * Math.PI;

class LogMap {
  constructor(app) {
    this.app = app;
    this.canvas = byId("map");
    this.legend = byId("legend");
    const { size, shares } = app.past.data.log;
    this.size = size;
    this.cell = size / shares.length;
    this.end = app.past.fill.at(-1).tail;
  }

  /* The position at which a cell was written last. */
  positionOf(cell) {
    const offset = (cell + 0.5) * this.cell;
    const lap = Math.floor((this.end - offset) / this.size);
    return lap * this.size + offset;
  }

  show() {
    const { past, moment } = this.app;
    const fill = past.fill[moment.index];
    const pen = prepareCanvas(this.canvas, MAP_SIZE, MAP_SIZE);
    pen.translate(MAP_SIZE / 2, MAP_SIZE / 2);
    this.drawCells(pen, moment, fill);
    this.drawDamage(pen, moment);
    this.drawWindow(pen, fill);
    pen.fillStyle = colour("text");
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = "600 19px system-ui, sans-serif";
    const share = 100 * fill.needed / this.size;
    const percent = `${share < 10 ? share.toFixed(1) : Math.round(share)} %`;
    pen.fillText(fill.isKnown ? percent : "?", 0, -9);
    pen.fillStyle = colour("dim");
    pen.font = LABEL_FONT;
    pen.fillText("needed", 0, 8);
    pen.fillText(`lap ${Math.floor(fill.tail / this.size) + 1}`, 0, 22);
    this.describe(moment, fill);
  }

  drawCells(pen, moment, fill) {
    const { past } = this.app, { shares, most } = past.data.log;
    const colours = ["log-turn", "log-carry", "log-other"].map(colour);
    const empty = colour("well"), step = TURN_ANGLE / shares.length;
    pen.lineWidth = 20;
    shares.forEach((kinds, cell) => {
      const position = this.positionOf(cell);
      const begin = cell * step - TURN_ANGLE / 4;
      const isKnown = position < fill.tail && position >= 0;
      const sum = kinds[0] + kinds[1] + kinds[2] + kinds[3];
      pen.strokeStyle = empty;
      pen.globalAlpha = 1;
      arc(pen, 58, begin, begin + step * 1.3);
      if (!isKnown || sum === 0) return;
      const kind = kinds.indexOf(Math.max(...kinds.slice(0, 3)));
      const { sequences, shares: levels } = past.levels[cell];
      const at = lastUpTo(sequences, moment.sequence);
      const level = at < 0 ? 0 : levels[at] / most;
      pen.strokeStyle = colours[kind];
      pen.globalAlpha = level === 0 && position < fill.oldest ? 0.16
        : 0.34 + 0.66 * Math.min(level * 1.4, 1);
      arc(pen, 58, begin, begin + step * 1.3);
    });
    pen.globalAlpha = 1;
  }

  /* Small as it may be, it is seen. */
  drawDamage(pen, moment) {
    pen.strokeStyle = colour("damage");
    pen.lineWidth = 26;
    for (const { position, size, index } of this.app.past.allDamages) {
      if (index > moment.index) continue;
      const angle = (position + size / 2) / this.size * TURN_ANGLE - TURN_ANGLE / 4;
      const half = Math.max(size / this.size * TURN_ANGLE, 0.05) / 2;
      arc(pen, 58, angle - half, angle + half);
    }
  }

  /* The arc of what is needed, and the end. */
  drawWindow(pen, fill) {
    const angle = (position) => position / this.size * TURN_ANGLE - TURN_ANGLE / 4;
    if (fill.needed > 0) {
      pen.strokeStyle = colour("log-live");
      pen.lineWidth = 2;
      arc(pen, 72, angle(fill.oldest), angle(Math.min(fill.tail, fill.oldest + this.size)));
    }
    pen.save();
    pen.rotate(angle(fill.tail));
    pen.fillStyle = colour("text");
    pen.beginPath();
    pen.moveTo(70, 0);
    pen.lineTo(77, -4.5);
    pen.lineTo(77, 4.5);
    pen.fill();
    pen.fillRect(46, -0.75, 24, 1.5);
    pen.restore();
  }

  describe(moment, fill) {
    const { past } = this.app;
    const cleanings = past.data.carried + lastUpTo(past.carries, moment.index) + 1;
    const history = Math.min(fill.tail, this.size) - fill.needed;
    const rows = [
      ["log-live", "alive", bytes(fill.live)],
      ["log-window", "needed", fill.isKnown ? bytes(fill.needed) : "not known"],
      ["log-history", "history", fill.isKnown ? bytes(Math.max(history, 0)) : "not known"],
      ["well", "log", bytes(this.size)],
      ["log-carry", "cleaned", cleanings ? `${cleanings} ×` : "not yet"]];
    if (past.allDamages.length) {
      const lost = past.allDamages.reduce((sum, one) => sum + one.size, 0);
      rows.push(["damage", "damaged", bytes(lost)]);
    }
    this.legend.replaceChildren(...rows.flatMap(([name, label, value]) => {
      const key = make("dt", "", make("i", `key ${name}`), label);
      return [key, make("dd", "", value)];
    }));
  }
}

function arc(pen, radius, from, to) {
  pen.beginPath();
  pen.arc(0, 0, radius, from, to);
  pen.stroke();
}
