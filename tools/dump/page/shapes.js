// SPDX-License-Identifier: Apache-2.0
/* How things are said: elements, numbers, times, titles. The one place where text meets elements.
 *
 * S1. Whatever comes from guests gets into an element by make() or textContent, as text.
 * S2. A time is always shown with its zone in sight: local time or UTC, as the reader chose. */
"use strict";

/* An element with a class and contents: strings are text, null is left out. */
function make(tag, name, ...contents) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const content of contents) {
    if (content !== null) element.append(content);
  }
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

/* A number and what it counts; `nouns` for another plural than with an s. */
function count(number, noun, nouns = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`;
}

function bytes(number) {
  if (number < 1024) return `${Math.round(number)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do {
    number /= 1024;
    unit++;
  } while (number >= 1024 && unit < units.length - 1);
  return `${number < 10 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

const clock = { isUtc: false };

function dateOf(time) {
  const date = new Date(time / 1000);
  return clock.isUtc ? date : new Date(date - date.getTimezoneOffset() * 60000);
}

function dayText(time) {
  return dateOf(time).toISOString().slice(0, 10);
}

/* To the millisecond. */
function timeText(time) {
  return dateOf(time).toISOString().slice(11, 23);
}

function zoneText(time) {
  const minutes = clock.isUtc ? 0 : -new Date(time / 1000).getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const size = Math.abs(minutes), pad = (number) => String(number).padStart(2, "0");
  return `UTC${minutes < 0 ? "−" : "+"}${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
}

function elapsedText(us) {
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${(us / 1000).toPrecision(3)} ms`;
  const s = us / 1e6;
  if (s < 120) return `${s.toPrecision(3)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${(s / 3600).toPrecision(3)} h` : `${Math.round(s / 86400)} days`;
}

/* What a moment is, in a few words. */
function titleOf(moment) {
  switch (moment.kind) {
    case CHANGE: return moment.operation === "server" ? "own change" : moment.operation;
    case BEGUN: return `life ${moment.life} begins`;
    case ENDED: return "end on purpose";
    case SEALED: return `seal ${moment.commit.slice(0, 10)}`;
    case LOST: return `damage: ${bytes(moment.size)}`;
    case CARRIED: return "cleaning";
    default: return "end of the log";
  }
}

function askerOf(moment) {
  if (moment.kind !== CHANGE) return "";
  return moment.isServer ? "server" : `dom${moment.domid}`;
}

/* Whether it tells of a crash: the next life does, or the last one's own words at the end. */
function isDeath(moment) {
  return (moment.kind === BEGUN && !moment.isClean) || moment.isCrash === true;
}

/* What a moment changed, in one line: the first path, of a removal the topmost. */
function gistOf(moment) {
  const { touched } = moment;
  if (moment.kind === BEGUN || moment.kind === PRESENT) return moment.lines[0];
  if (moment.kind === CARRIED) {
    return `${count(moment.nodes, "node")} and ${count(moment.items, "item")} carried`;
  }
  if (touched.length === 0) return "";
  const nodes = touched.filter((track) => !track.isItem);
  let best = nodes.length ? nodes : touched;
  if (moment.cuts && best.at(-1).at(moment.index) === null) best = [...best].reverse();
  const key = best[0].key.replace("#", "");
  const [kind, , transaction, number] = key.split(".");
  const told = kind === "tx" && number !== undefined && best[0].at(moment.index);
  return told ? `${told.value.split(" ")[1] ?? ""} in tx ${transaction}` : key;
}

/* A colour of the style sheet, for a canvas. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
