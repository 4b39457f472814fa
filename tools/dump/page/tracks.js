// SPDX-License-Identifier: Apache-2.0
/* What the time line shows: lives, changes, who made them, and how full the log was.
 *
 * K1. What is aggregated into one pixel shows its largest change, and every death and damage.
 * Change with: timeline.js, which says where everything stands. */
"use strict";

const LABEL_FONT = "10.5px system-ui, sans-serif";
const TICK_GAP = 96; // pixels between times

function drawTracks(line) {
  const pen = line.canvas.getContext("2d");
  pen.font = LABEL_FONT;
  pen.textBaseline = "middle";
  drawLabels(line, pen);
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER - 6, 0, line.width + MARGIN + 6, line.tops.end + 6);
  pen.clip();
  drawTimes(line, pen);
  drawLives(line, pen);
  const columns = gather(line);
  drawChanges(line, pen, columns);
  drawLanes(line, pen, columns);
  drawLog(line, pen);
  drawMarks(line, pen);
  drawPart(line, pen);
  pen.restore();
}

/* Which part of the whole is in view. */
function drawPart(line, pen) {
  if (line.to - line.from >= line.size) return;
  pen.fillStyle = colour("edge");
  const share = line.width / line.size;
  pen.fillRect(GUTTER, line.tops.end + 1, line.width, 1);
  pen.fillStyle = colour("accent");
  pen.fillRect(GUTTER + line.from * share, line.tops.end, (line.to - line.from) * share, 3);
}

function drawLabels(line, pen) {
  const { tops, app } = line;
  pen.textAlign = "right";
  pen.fillStyle = colour("dim");
  pen.fillText("lives", GUTTER - 12, tops.lives + 9);
  pen.fillText("changes", GUTTER - 12, tops.changes + 24);
  pen.fillText("log", GUTTER - 12, tops.log + 20);
  app.lanes.forEach((lane, index) => {
    pen.fillStyle = colour(lane.colour);
    pen.fillText(lane.label, GUTTER - 12, tops.lanes + (index + 0.5) * LANE_HIGH);
  });
  pen.fillStyle = colour("line");
  pen.fillRect(GUTTER, tops.changes + 34, line.width, 1);
  app.lanes.forEach((_, index) => {
    pen.fillRect(GUTTER, tops.lanes + (index + 0.5) * LANE_HIGH - 0.5, line.width, 1);
  });
}

function drawTimes(line, pen) {
  const { moments } = line.app.past;
  pen.textAlign = "center";
  const [first, last] = line.inView();
  const span = (moments[last]?.time ?? 0) - (moments[first]?.time ?? 0);
  for (let x = GUTTER + TICK_GAP / 2; x < GUTTER + line.width - 30; x += TICK_GAP) {
    const moment = moments[line.momentAt(line.placeAt(x))];
    if (!moment.time) continue;
    const text = timeText(moment.time).slice(0, span < 20e6 ? 12 : 8);
    pen.fillStyle = colour("faint");
    pen.fillText(text, x, 6);
  }
}

function drawLives(line, pen) {
  const { past } = line.app, top = line.tops.lives;
  pen.textAlign = "left";
  past.lives.forEach((life, index) => {
    const from = line.x(edgeOf(line, life.begin)), to = line.x(edgeOf(line, life.end));
    if (to < GUTTER || from > GUTTER + line.width) return;
    pen.fillStyle = colour(index % 2 ? "life-odd" : "life-even");
    pen.beginPath();
    pen.roundRect(from + 0.5, top, Math.max(to - from - 1, 1), 18, 3);
    pen.fill();
    const left = Math.max(from, GUTTER) + 11, room = Math.min(to, GUTTER + line.width) - left - 8;
    const fits = [`life ${life.number}`, `${life.number}`].find(
      (text) => pen.measureText(text).width <= room);
    pen.fillStyle = colour("dim");
    if (fits) pen.fillText(fits, left, top + 9.5);
  });
  pen.fillStyle = colour("faint");
  for (const moment of past.moments) {
    if (moment.kind !== SEALED) continue;
    const x = line.x(line.places[moment.index]);
    if (x >= GUTTER - 1) pen.fillRect(x - 0.5, top + 15, 1, 3);
  }
}

/* Between a moment and the one before. */
function edgeOf(line, index) {
  if (index <= 0) return 0;
  if (index >= line.size) return line.size;
  return (line.places[index - 1] + line.places[index]) / 2;
}

/* Per pixel column: the largest change up and down, transactions, and who. */
function gather(line) {
  const { app } = line, { moments } = app.past;
  const size = Math.ceil(line.width) + 2;
  const columns = { ups: new Float32Array(size), downs: new Float32Array(size),
                    kinds: new Uint8Array(size), lanes: app.lanes.map(() => new Uint8Array(size)),
                    most: 4 };
  const [first, last] = line.inView();
  for (let index = first; index <= last; index++) {
    const moment = moments[index];
    if (moment.kind !== CHANGE) continue;
    columns.most = Math.max(columns.most, moment.puts, moment.cuts);
    const at = Math.round(line.x(line.places[index]) - GUTTER);
    if (at < 0 || at >= size) continue;
    const isShown = app.isShown[index];
    columns.ups[at] = Math.max(columns.ups[at], moment.isQuiet ? 1 : moment.puts);
    columns.downs[at] = Math.max(columns.downs[at], moment.cuts);
    const kind = isShown ? (isTransaction(moment) ? 3 : 2) : 1;
    columns.kinds[at] = Math.max(columns.kinds[at], kind);
    const lane = columns.lanes[app.laneIndex(moment.who)];
    lane[at] = Math.max(lane[at], isShown ? 2 : 1);
  }
  return columns;
}

function barWidth(line) {
  const wide = line.width / (line.to - line.from);
  return line.isByTime || wide < 2 ? 1.5 : Math.min(wide - 1, 12);
}

function drawChanges(line, pen, columns) {
  const middle = line.tops.changes + 34;
  const bar = barWidth(line), scale = 1 / Math.log2(columns.most);
  const colours = ["", "put-soft", "bar", "tx"].map((name) => (name ? colour(name) : ""));
  const [cut, cutSoft] = [colour("cut"), colour("cut-soft")];
  for (let at = 0; at < columns.ups.length; at++) {
    const kind = columns.kinds[at];
    if (kind === 0) continue;
    const x = GUTTER + at - bar / 2;
    const up = columns.ups[at] && 3 + Math.log2(columns.ups[at]) * scale * 28;
    const down = columns.downs[at] && 3 + Math.log2(columns.downs[at]) * scale * 12;
    pen.fillStyle = colours[kind];
    pen.fillRect(x, middle - up, bar, up);
    pen.fillStyle = kind === 1 ? cutSoft : cut;
    pen.fillRect(x, middle + 1, bar, down);
  }
}

function drawLanes(line, pen, columns) {
  const bar = barWidth(line);
  line.app.lanes.forEach((lane, index) => {
    const top = line.tops.lanes + index * LANE_HIGH + 2, marks = columns.lanes[index];
    pen.fillStyle = colour(lane.colour);
    for (const [value, alpha] of [[1, 0.25], [2, 1]]) {
      pen.globalAlpha = alpha;
      for (let at = 0; at < marks.length; at++) {
        if (marks[at] === value) pen.fillRect(GUTTER + at - bar / 2, top, bar, 8);
      }
    }
    pen.globalAlpha = 1;
  });
}

/* What part of the log was alive, needed, and history. */
function drawLog(line, pen) {
  const { past } = line.app, { fill } = past, size = past.data.log.size;
  const bottom = line.tops.end, high = bottom - line.tops.log;
  pen.fillStyle = colour("well");
  pen.fillRect(GUTTER, line.tops.log, line.width, high);
  const [first, last] = line.inView();
  const steps = Math.max(1, Math.floor((last - first) / line.width / 2));
  const layers = [
    ["log-history", (one) => Math.min(one.tail, size)],
    ["log-window", (one) => one.needed],
    ["log-live", (one) => one.live],
  ];
  for (const [name, value] of layers) {
    pen.fillStyle = colour(name);
    pen.beginPath();
    pen.moveTo(line.x(edgeOf(line, first)), bottom);
    for (let index = first; index <= last; index += steps) {
      const y = bottom - Math.min(value(fill[index]) / size, 1) * high;
      pen.lineTo(line.x(edgeOf(line, index)), y);
      pen.lineTo(line.x(edgeOf(line, Math.min(index + steps, line.size))), y);
    }
    pen.lineTo(line.x(edgeOf(line, last + 1)), bottom);
    pen.fill();
  }
  pen.fillStyle = colour("log-carry");
  for (const index of past.carries) {
    if (index >= first && index <= last) pen.fillRect(line.x(line.places[index]) - 0.5,
                                                      line.tops.log - 4, 1, 3);
  }
}

/* Crashes and damage, through all tracks. */
function drawMarks(line, pen) {
  const { past } = line.app;
  for (const moment of past.crashes) {
    const isLast = moment.kind === PRESENT, isOpen = isLast && !moment.isCrash;
    const x = line.x(isLast ? line.places[moment.index] : edgeOf(line, moment.index));
    drawMark(line, pen, x, isOpen ? "faint" : "crash", isOpen ? "…" : "✕");
  }
  for (const moment of past.damages) {
    drawMark(line, pen, line.x(line.places[moment.index]), "damage", "!");
  }
}

function drawMark(line, pen, x, name, sign) {
  pen.fillStyle = colour(name);
  pen.globalAlpha = 0.55;
  pen.fillRect(x - 0.5, line.tops.lives + 18, 1, line.tops.end - line.tops.lives - 18);
  pen.globalAlpha = 1;
  pen.beginPath();
  pen.arc(x, line.tops.lives + 9, 6.5, 0, 7);
  pen.fill();
  pen.fillStyle = colour("panel");
  pen.textAlign = "center";
  pen.font = "bold 9px system-ui, sans-serif";
  pen.fillText(sign, x, line.tops.lives + 9.5);
  pen.font = LABEL_FONT;
}
