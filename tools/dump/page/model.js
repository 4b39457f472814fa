// SPDX-License-Identifier: Apache-2.0
/* The rows of the tree at a moment: what is there, and what the moment has removed.
 *
 * M1. Children stand in the order of creation, as DIRECTORY lists them; items by their key.
 * M2. What the moment has touched is unfolded, up to REVEALED nodes; else a node is as the reader
 *     left it, or unfolded if that keeps the tree small.
 * Knows nothing of elements. */
"use strict";

const REVEALED = 500;
const SMALL = 400; // rows that are unfolded without being asked

class Folds {
  constructor(past) {
    this.chosen = new Map();
    this.depth = this.depthFor(past);
    this.all = null; // true or false: the reader's word for everything
  }

  depthFor(past) {
    const counts = [], last = past.moments.length - 1;
    for (const track of past.tracks.values()) {
      if (track.isItem || track.at(last) === null) continue;
      counts[track.depth] = (counts[track.depth] ?? 0) + 1;
    }
    let depth = 0, sum = 0;
    while (depth < counts.length && (sum += counts[depth] ?? 0) <= SMALL) depth++;
    return Math.max(depth - 1, 1);
  }

  isOpen(track) {
    const chosen = this.chosen.get(track);
    if (chosen !== undefined) return chosen;
    if (this.all !== null) return this.all || track.depth === 0;
    return track.depth < this.depth && (!track.isItem || track.depth === 0);
  }

  choose(track, isOpen) {
    this.chosen.set(track, isOpen);
  }

  chooseAll(isOpen) {
    this.chosen.clear();
    this.all = isOpen;
  }
}

/* Whether anything at or below the track is there: only asked where nodes are missing above. */
function isAlive(track, moment) {
  if (track.at(moment) !== null) return true;
  return track.hasOrphans && track.children.some((child) => isAlive(child, moment));
}

/* The children that are there, or that `shown` names, in order. */
function childrenAt(track, moment, shown) {
  const found = [];
  let isSorted = true, last = -1;
  for (const child of track.children) {
    const version = child.at(moment) ?? (shown.has(child) ? child.at(moment - 1) : null);
    if (version === null && !shown.has(child) && !(child.hasOrphans && isAlive(child, moment))) {
      continue;
    }
    const ordinal = version ? version.ordinal : Infinity;
    isSorted &&= ordinal >= last;
    last = ordinal;
    found.push({ child, ordinal });
  }
  if (track.isItem) {
    found.sort((a, b) => a.child.name.localeCompare(b.child.name, "en", { numeric: true }));
  } else if (!isSorted) {
    found.sort((a, b) => a.ordinal - b.ordinal);
  }
  return found.map((pair) => pair.child);
}

/* The tracks that a moment touches, and with all above them those to be unfolded. */
function shownAt(moment) {
  const shown = new Set(), open = new Set();
  for (const track of moment.touched) {
    shown.add(track);
    for (let up = track.parent, count = open.size; up && count < REVEALED; up = up.parent) {
      shown.add(up);
      open.add(up);
    }
  }
  return { shown, open };
}

/* Rows {track, depth, before, after, isTouched, isOpen, count}, from the top. `isNear` says of a
 * track whether the filter keeps it. */
function treeRows(past, moment, folds, isNear, hasItems) {
  const rows = [], at = moment.index;
  const touched = new Set(moment.touched);
  const { shown, open } = shownAt(moment);
  function add(track, depth) {
    const isTouched = touched.has(track), after = track.at(at);
    const children = track.children.length ? childrenAt(track, at, shown).filter(isNear) : [];
    const isOpen = children.length > 0 && (open.has(track) || folds.isOpen(track));
    rows.push({ track, depth, isTouched, after, before: isTouched ? track.at(at - 1) : after,
                wasWhole: moment.wasWhole, count: children.length, isOpen });
    if (isOpen) for (const child of children) add(child, depth + 1);
  }
  if (past.root.at(at) || shown.has(past.root) || isAlive(past.root, at)) add(past.root, 0);
  if (hasItems && past.items.children.length) add(past.items, 0);
  return rows;
}

/* What has become of a touched row: added, removed, changed, written again as it was; or set,
 * where nobody knows whether it was there before. */
function fateOf(row) {
  if (!row.isTouched) return "";
  if (row.before === null) return row.after === null ? "" : row.wasWhole ? "added" : "set";
  if (row.after === null) return "removed";
  return row.before.value === row.after.value && row.before.perms === row.after.perms
    ? row.before.ordinal === row.after.ordinal ? "same" : "again" : "changed";
}
