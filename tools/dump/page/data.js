// SPDX-License-Identifier: Apache-2.0
/* The data in this page -> moments, and a track for every node and item.
 *
 * D1. A track remembers each version of one node: the state at any moment is a look-up in it, so
 *     a step and a jump cost the same, and nothing can get out of step.
 * D2. `puts` and `cuts` of a moment count nodes; a moment that touches only items, the server's own
 *     bookkeeping, is quiet.
 * D3. Nothing here changes once it was read.
 * Knows nothing of how it is shown. Change with: pagedata.py, which writes it. */
"use strict";

const CHANGE = 0, BEGUN = 1, ENDED = 2, SEALED = 3, LOST = 4, CARRIED = 5, PRESENT = 6;
const ITEMS = "#";

/* What the page carries; the browser unpacks it. */
async function unpack() {
  const packed = atob(document.getElementById("data").textContent);
  const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

/* The last of the ascending `numbers` that is at most `limit`; -1 if none is. */
function lastUpTo(numbers, limit) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/* One node or item through time. Version k is `versions[k]` from moment `times[k]` on; null: it is
 * not there. -1 is the time before the first moment. */
class Track {
  constructor(key, name, parent) {
    this.key = key;
    this.name = name;
    this.parent = parent;
    this.depth = parent ? parent.depth + 1 : 0;
    this.children = [];
    this.times = [];
    this.versions = [];
    this.hasOrphans = false; // something below it was known while it was not there itself
  }

  /* What it is after `moment`; null if it is not there. */
  at(moment) {
    const { times } = this, last = times.length - 1;
    if (last < 0 || times[0] > moment) return null;
    if (times[last] <= moment) return this.versions[last];
    return this.versions[lastUpTo(times, moment)];
  }

  get isItem() {
    return this.key[0] === ITEMS;
  }
}

/* The name of what holds `key`, or null. Items hang below their kind: #watch.5.1, #watch, #. */
function parentKey(key) {
  if (key.length === 1) return null;
  if (key[0] === ITEMS) {
    const dot = key.indexOf(".");
    return dot < 0 ? ITEMS : key.slice(0, dot);
  }
  const slash = key.lastIndexOf("/");
  return slash > 0 ? key.slice(0, slash) : key[0] === "/" ? "/" : null;
}

class Past {
  constructor(data) {
    this.data = data;
    this.tracks = new Map();
    this.root = this.track("/");
    this.items = this.track(ITEMS);
    this.items.hasOrphans = true;
    this.moments = [];
    this.lives = [];
    for (const difference of data.base) this.note(difference, -1);
    this.readMoments();
    this.readFill();
    this.readLives();
    this.domains = this.countDomains();
  }

  /* The track of a key, made with all above it where it is new. */
  track(key) {
    let one = this.tracks.get(key);
    if (one === undefined) {
      const above = parentKey(key);
      const parent = above === null ? null : this.track(above);
      const cut = above === null || above.length === 1 ? 1 : above.length + 1;
      one = new Track(key, above === null ? key : key.slice(cut), parent);
      if (parent) parent.children.push(one);
      if (key[0] === ITEMS && !key.includes(".")) one.hasOrphans = true;
      this.tracks.set(key, one);
    }
    return one;
  }

  /* Take in what a moment makes of a node; returns its track. */
  note(difference, moment) {
    const { strings } = this.data;
    const [key, value, perms, ordinal] = difference;
    const track = this.track(strings[key]);
    const version = value === undefined ? null
      : { value: strings[value], perms: perms === undefined ? "" : strings[perms],
          ordinal: ordinal ?? 0 };
    track.times.push(moment);
    track.versions.push(version);
    const { parent } = track;
    if (version && parent && parent.at(moment) === null) parent.hasOrphans = true;
    return track;
  }

  readMoments() {
    let time = this.data.first_time;
    for (const [kind, sequence, elapsed, isWhole, ...more] of this.data.moments) {
      time += elapsed;
      const moment = { index: this.moments.length, kind, sequence, time, isWhole: !!isWhole,
                       touched: [], puts: 0, cuts: 0, step: 0, steps: 1 };
      if (kind === CHANGE) this.readChange(moment, more);
      else if (kind === BEGUN) [moment.life, moment.isClean, moment.lines] = more;
      else if (kind === SEALED) [moment.sealed, moment.commit, moment.tree, moment.parent] = more;
      else if (kind === LOST) [moment.position, moment.size] = more;
      else if (kind === CARRIED) {
        [moment.nodes, moment.items] = more;
        this.readDifferences(moment, more[2]);
      }
      this.moments.push(moment);
    }
    const { present } = this.data, { moments } = this;
    const last = moments[moments.length - 1];
    moments.forEach((moment, index) => {
      moment.wasWhole = index > 0 ? moments[index - 1].isWhole : this.data.is_base_whole;
    });
    moments.push({ index: moments.length, kind: PRESENT, sequence: last ? last.sequence : 0, time,
                   isWhole: !last || present.is_whole, wasWhole: true, lines: present.lines,
                   isClean: present.is_end, isCrash: present.is_crash && !present.is_end,
                   touched: [], puts: 0, cuts: 0, step: 0, steps: 1 });
  }

  readChange(moment, more) {
    [moment.step, moment.steps, moment.domid, moment.conn, moment.pid, moment.type,
     moment.request] = more;
    moment.isServer = moment.type === this.data.server;
    moment.operation = this.data.types[moment.type] ?? `type ${moment.type}`;
    moment.who = moment.isServer ? "server" : String(moment.domid);
    this.readDifferences(moment, more[7]);
  }

  readDifferences(moment, differences) {
    const touched = new Set();
    for (const difference of differences) touched.add(this.note(difference, moment.index));
    moment.touched = [...touched];
    for (const track of moment.touched) {
      if (track.isItem) continue;
      if (track.at(moment.index) === null) moment.cuts++;
      else moment.puts++;
    }
    moment.isQuiet = moment.puts + moment.cuts === 0;
  }

  readFill() {
    const sum = [0, 0, 0];
    this.fill = this.data.fill.map((row) => {
      row.forEach((by, column) => { sum[column] += by; });
      const [tail, oldest, live] = sum;
      return { tail, oldest, live, isKnown: oldest >= 0, needed: oldest < 0 ? 0 : tail - oldest };
    });
    const none = { tail: 0, oldest: 0, live: 0, isKnown: true, needed: 0 };
    this.fill.push(this.fill.at(-1) ?? none);
    const { levels } = this.data.log;
    this.levels = levels.map((numbers) => {
      const sequences = [], shares = [];
      for (let at = 0, sequence = 0, level = 0; at < numbers.length; at += 2) {
        sequences.push(sequence += numbers[at]);
        shares.push(level += numbers[at + 1]);
      }
      return { sequences, shares };
    });
  }

  /* Lives as [begin, end) of moments; `ending` is that of the one before, in its LIFE moment. */
  readLives() {
    let life = { number: this.data.first_life, begin: 0, ending: null };
    for (const moment of this.moments) {
      if (moment.kind === BEGUN) {
        if (moment.index > life.begin) this.lives.push({ ...life, end: moment.index });
        life = { number: moment.life, begin: moment.index, ending: moment };
      }
    }
    if (this.moments.length > 1) this.lives.push({ ...life, end: this.moments.length });
    this.crashes = this.moments.filter((moment) =>
      (moment.kind === BEGUN || moment.kind === PRESENT) && !moment.isClean && moment.sequence > 0);
    this.damages = this.moments.filter((moment) => moment.kind === LOST);
    this.allDamages = [...this.data.lost.map(([position, size]) => ({ position, size, index: -1 })),
                       ...this.damages];
    this.carries = this.moments.filter((moment) => moment.kind === CARRIED)
      .map((moment) => moment.index);
  }

  lifeAt(moment) {
    const begins = this.lives.map((life) => life.begin);
    return this.lives[Math.max(lastUpTo(begins, moment), 0)];
  }

  /* Who changed how much, the busiest first. */
  countDomains() {
    const counts = new Map();
    for (const moment of this.moments) {
      if (moment.kind === CHANGE) counts.set(moment.who, (counts.get(moment.who) ?? 0) + 1);
    }
    return [...counts].map(([who, count]) => ({ who, count })).sort((a, b) => b.count - a.count);
  }

  /* The first moment of record `sequence`, at step `step`; the next one if it has none. */
  find(sequence, step = 0) {
    const sequences = this.moments.map((moment) => moment.sequence);
    let at = lastUpTo(sequences, sequence - 1) + 1;
    while (at + 1 < this.moments.length && this.moments[at + 1].sequence === sequence
           && this.moments[at].step < step) at++;
    return Math.min(at, this.moments.length - 1);
  }
}
