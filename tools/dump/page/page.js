// SPDX-License-Identifier: Apache-2.0
/* The page: which moment is looked at, through which filter, and the keys.
 *
 * P1. Everything shown follows from moment, filter, track and clock; go(), narrow(), select() and
 *     turnClock() are the only ways to change them. What happens within one frame is drawn once.
 * P2. The address names the moment and the filter (#seq=123&path=/a), and an address that is given
 *     is gone to. */
"use strict";

const LANES = 6;
const ADDRESS_DELAY_MS = 250; // browsers allow only so many changes of the address

const SCROLLING = new Set(["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"]);

const KEYS = [
  ["← → ↑ ↓", "the moment before, the next"],
  ["Page ↑ ↓", "a page of the list"], ["Home End", "the first moment, the last"],
  ["c C", "the next crash or damage, the one before"],
  ["n N", "the next change of the chosen node, the one before"],
  ["/", "filter: words that begin with / are paths"], ["Esc", "close, or clear the filter"],
  ["+ − 0", "time line: closer, wider, all of it"], ["t", "time line: by order, or by time"],
  ["z", "times: local, or UTC"], ["e", "tree: unfold all, or fold"], ["i", "tree: server's items"],
  ["Tab", "time line, list, tree; the arrows fold in the tree"], ["?", "this"],
];

class App {
  constructor(past) {
    this.past = past;
    this.rowHeight = parseFloat(colour("row")) || 22;
    this.moment = past.moments[past.moments.length - 1];
    this.track = null;
    this.filter = new Filter();
    this.lanes = this.chooseLanes();
    this.laneOfWho = new Map(this.lanes.map((lane, index) => [lane.who, index]));
    this.sift();
    this.timeline = new Timeline(this);
    this.list = new ListView(this);
    this.tree = new TreeView(this);
    this.detail = new DetailView(this);
    this.map = new LogMap(this);
    this.drawnMoment = null;
    this.isAsked = false;
    this.fillHead();
    this.listen();
    this.readAddress();
    this.draw();
  }

  // -- who has which colour

  chooseLanes() {
    const { domains } = this.past;
    const order = (one) => (one.who === "server" ? -1 : Number(one.who));
    const named = domains.slice(0, domains.length > LANES ? LANES - 1 : LANES)
      .sort((a, b) => order(a) - order(b));
    const lanes = named.map(({ who }, index) => ({
      who, label: who === "server" ? who : `dom${who}`,
      colour: who === "server" ? "lane-server" : `lane-${index}` }));
    if (domains.length > LANES) lanes.push({ who: null, label: "others", colour: "lane-others" });
    return lanes;
  }

  laneIndex(who) {
    return this.laneOfWho.get(who) ?? this.lanes.length - 1;
  }

  laneOf(who) {
    return this.lanes[this.laneIndex(who)].colour;
  }

  // -- the three ways to change what is shown

  go(index) {
    const { moments } = this.past;
    this.moment = moments[Math.min(Math.max(index, 0), moments.length - 1)];
    this.ask();
  }

  narrow() {
    this.filter = new Filter(byId("words").value, byId("who").value, byId("what").value);
    this.sift();
    this.timeline.draw();
    this.ask();
  }

  select(track) {
    this.track = track;
    this.drawnMoment = null;
    this.ask();
  }

  /* Which moments the filter lets through. */
  sift() {
    const { moments } = this.past;
    this.isShown = Uint8Array.from(moments, (moment) => (this.filter.passes(moment) ? 1 : 0));
    this.shown = [];
    this.isShown.forEach((isShown, index) => { if (isShown) this.shown.push(index); });
    byId("matches").textContent = this.filter.isNarrow ? count(
      this.shown.length, "match", "matches") : "";
  }

  ask() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      this.draw();
    });
  }

  draw() {
    const isNew = this.drawnMoment !== this.moment;
    this.drawnMoment = this.moment;
    this.list.show();
    this.tree.show(isNew);
    this.detail.show(isNew);
    this.map.show();
    this.timeline.show();
    this.fillThen();
    this.writeAddress();
  }

  // -- steps

  /* `by` moments of those shown on, or back. */
  step(by) {
    const { shown } = this;
    if (shown.length === 0) return;
    const at = lastUpTo(shown, this.moment.index);
    const isHere = shown[at] === this.moment.index;
    const to = by < 0 && !isHere ? at + by + 1 : at + by;
    this.go(shown[Math.min(Math.max(to, 0), shown.length - 1)]);
  }

  /* The next of the ascending moments `indices`, or the one before. */
  jump(indices, isForward) {
    const { index } = this.moment;
    const to = isForward ? indices[lastUpTo(indices, index) + 1]
      : indices[lastUpTo(indices, index - 1)];
    if (to !== undefined && to >= 0) this.go(to);
  }

  // -- what stands in words

  fillHead() {
    const { past } = this, { data } = past;
    const changes = past.moments.filter((moment) => moment.kind === CHANGE).length;
    const deaths = past.crashes.filter(isDeath).length;
    byId("name").textContent = data.name.replace(/^.*\/(?=.)/, "");
    byId("name").title = data.name;
    document.title = `${data.name} · xsdump`;
    const parts = [count(changes, "change"), count(past.lives.length, "life", "lives"),
                   count(deaths, "crash", "crashes")];
    byId("summary").append(parts.join(" · "));
    const lost = past.allDamages.length;
    if (lost) byId("summary").append(" · ", make("b", "bad", count(lost, "damaged place")));
    const notes = this.notes();
    byId("notes").hidden = notes.length === 0;
    byId("notes").textContent = notes.join(" ");
    byId("notes").className = data.problems.length ? "bad" : "";
    byId("who").append(new Option("every domain", ""), ...[...past.domains]
      .map(({ who, count: number }) => new Option(
        `${who === "server" ? "server" : `domain ${who}`} (${number.toLocaleString("en")})`, who)));
    byId("keys").append(...KEYS.flatMap(([keys, what]) => [
      make("dt", "", ...keys.split(" ").map((key) => make("kbd", "", key))),
      make("dd", "", what)]));
    const digits = String(past.moments.at(-1).sequence).length;
    document.documentElement.style.setProperty("--digits", Math.max(digits, 3));
    this.showClock();
  }

  notes() {
    const { data, moments } = this.past, notes = [];
    if (moments.length === 1) notes.push("Nothing is recorded in this region.");
    if (data.omitted) {
      notes.push(`The newest changes only: ${count(data.omitted, "older change")} of this log `
        + "came before the first moment here (--last N takes more).");
    } else if (!data.is_from_the_beginning && moments.length > 1) {
      notes.push("Older history was cleaned away. Of the time before, only what was still alive "
        + "later is known.");
    }
    return [...notes, ...data.problems];
  }

  fillThen() {
    const { moment } = this;
    byId("then").replaceChildren(
      moment.kind === PRESENT ? "Tree at the end" : `Tree at record ${moment.sequence}`,
      make("span", "", moment.time ? ` ${dayText(moment.time)} ${timeText(moment.time)} `
        + zoneText(moment.time) : ""));
  }

  showClock() {
    byId("zone").textContent = clock.isUtc ? "UTC" : `local, ${zoneText(this.moment.time)}`;
    byId("scale").textContent = this.timeline.isByTime ? "by time" : "by order";
  }

  turnClock() {
    clock.isUtc = !clock.isUtc;
    this.showClock();
    this.timeline.draw();
    this.drawnMoment = null;
    this.ask();
  }

  turnScale() {
    this.timeline.setScale(!this.timeline.isByTime);
    this.showClock();
  }

  // -- the address

  readAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    for (const [name, id] of [["path", "words"], ["domain", "who"], ["kind", "what"]]) {
      if (said.has(name)) byId(id).value = said.get(name);
    }
    if (byId("who").selectedIndex < 0) byId("who").selectedIndex = 0;
    if (byId("what").selectedIndex < 0) byId("what").selectedIndex = 0;
    this.narrow();
    const [sequence, step] = (said.get("seq") ?? "").split(".").map(Number);
    if (sequence > 0) this.go(this.past.find(sequence, step || 0));
    const track = this.past.tracks.get(said.get("node") ?? "");
    if (track) this.select(track);
  }

  writeAddress() {
    clearTimeout(this.addressTimer);
    this.addressTimer = setTimeout(() => {
      const { moment, filter } = this, said = new URLSearchParams();
      if (moment.kind !== PRESENT) {
        said.set("seq", moment.step ? `${moment.sequence}.${moment.step}` : moment.sequence);
      }
      const words = byId("words").value.trim();
      if (words) said.set("path", words);
      if (filter.who) said.set("domain", filter.who);
      if (filter.what !== "main") said.set("kind", filter.what);
      if (this.track) said.set("node", this.track.key);
      const address = `#${said.toString().replaceAll("%2F", "/")}`;
      if (address !== (location.hash || "#")) history.replaceState(null, "", address);
    }, ADDRESS_DELAY_MS);
  }

  // -- what the reader does

  listen() {
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("hashchange", () => this.readAddress());
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("filter").addEventListener("input", () => this.narrow());
    byId("zone").addEventListener("click", () => this.turnClock());
    byId("scale").addEventListener("click", () => this.turnScale());
    byId("ask").addEventListener("click", () => byId("help").showModal());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.timeline.draw();
      this.ask();
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const isTyping = event.target.matches("input, select");
    if (event.target.id === "detail" && SCROLLING.has(event.key)) return;
    if (event.key === "Escape") this.escape(event);
    else if (isTyping) {
      if (event.key === "Enter") byId("list").focus();
      return;
    } else if (!this.act(event)) return;
    event.preventDefault();
  }

  escape(event) {
    if (event.target.matches("input") && byId("words").value === "") byId("list").focus();
    else if (this.track && !event.target.matches("input")) this.select(null);
    else {
      byId("words").value = byId("who").value = "";
      this.narrow();
    }
  }

  /* Do what a key stands for; false if it stands for nothing. */
  act(event) {
    const { past, timeline } = this, page = this.list.list.page;
    const disasters = [...past.crashes, ...past.damages].map((one) => one.index)
      .sort((a, b) => a - b);
    const actions = {
      ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
      ArrowUp: () => this.step(-1), ArrowDown: () => this.step(1),
      PageUp: () => this.step(-page), PageDown: () => this.step(page),
      Home: () => this.step(-Infinity), End: () => this.step(Infinity),
      c: () => this.jump(disasters, true), C: () => this.jump(disasters, false),
      n: () => this.track && this.jump(this.track.times, true),
      N: () => this.track && this.jump(this.track.times, false),
      "/": () => byId("words").select(), "?": () => byId("help").showModal(),
      z: () => this.turnClock(), t: () => this.turnScale(), e: () => this.tree.toggleAll(),
      i: () => this.tree.toggleItems(), "+": () => timeline.zoom(1 / ZOOM),
      "=": () => timeline.zoom(1 / ZOOM), "-": () => timeline.zoom(ZOOM),
      0: () => timeline.view(0, timeline.size),
    };
    if (!Object.hasOwn(actions, event.key)) return false;
    actions[event.key]();
    return true;
  }
}

unpack().then((data) => {
  window.tardigrade = new App(new Past(data));
  document.body.dataset.ready = "true";
}).catch((error) => {
  byId("notes").hidden = false;
  byId("notes").textContent = `This page cannot be shown: ${error}`;
  throw error;
});
