// SPDX-License-Identifier: Apache-2.0
/* Which moments are shown: by words, by domain, by kind.
 *
 * F1. A word that begins with "/" is a path: changes of it and of all below it match, and the tree
 *     shows only what lies above and below. Any other word is looked for, without regard to case,
 *     in paths, values, permissions, operation and who has asked. All words must match.
 * Knows nothing of elements. */
"use strict";

const KINDS = {
  main: new Set([CHANGE, BEGUN, ENDED, SEALED, LOST, PRESENT]),
  changes: new Set([CHANGE]),
  tree: new Set([CHANGE, BEGUN, ENDED, LOST, PRESENT]),
  all: new Set([CHANGE, BEGUN, ENDED, SEALED, LOST, CARRIED, PRESENT]),
  tx: new Set([CHANGE]),
  lives: new Set([BEGUN, ENDED, LOST, PRESENT]),
};
const TRANSACTION_END = 7;

class Filter {
  constructor(words = "", who = "", what = "main") {
    const all = words.split(/\s+/).filter(Boolean);
    this.paths = all.filter((word) => word[0] === "/").map((word) => word.replace(/(.)\/$/, "$1"));
    this.words = all.filter((word) => word[0] !== "/").map((word) => word.toLowerCase());
    this.who = who;
    this.what = what in KINDS ? what : "main";
  }

  get isNarrow() {
    return this.paths.length + this.words.length > 0 || this.who !== "";
  }

  passes(moment) {
    const { kind } = moment;
    if (!KINDS[this.what].has(kind)
        && !(kind === CARRIED && moment.touched.length && this.what === "main")) return false;
    if (this.what === "tx" && !isTransaction(moment)) return false;
    if (this.what === "tree" && kind === CHANGE && moment.isQuiet) return false;
    if (this.who !== "" && moment.who !== this.who) return false;
    for (const path of this.paths) {
      if (!moment.touched.some((track) => isWithin(track.key, path))) return false;
    }
    if (this.words.length === 0) return true;
    const said = searchText(moment);
    return this.words.every((word) => said.includes(word));
  }

  /* Whether the tree shows a track: above, at or below each path. */
  isNear(track) {
    return track.isItem || this.paths.every(
      (path) => isWithin(track.key, path) || isWithin(path, track.key));
  }
}

/* Whether it is the end of one that has changed the tree. */
function isTransaction(moment) {
  return moment.type === TRANSACTION_END && !moment.isQuiet;
}

function isWithin(path, above) {
  return path === above || above === "/" || (path.startsWith(above) && path[above.length] === "/");
}

/* All that a word may be found in; kept with the moment. */
function searchText(moment) {
  if (moment.search === undefined) {
    const parts = [titleOf(moment), askerOf(moment), ...(moment.lines ?? [])];
    for (const track of moment.touched) {
      parts.push(track.key);
      for (const version of [track.at(moment.index), track.at(moment.index - 1)]) {
        if (version) parts.push(version.value, version.perms);
      }
    }
    moment.search = parts.join("\n").toLowerCase();
  }
  return moment.search;
}
