// SPDX-License-Identifier: Apache-2.0
/* The tree at the moment: rows with what changed, folding, and keys of its own while focused. */
"use strict";

const SIGNS = { added: "+", removed: "−", changed: "~", same: "=", again: "±", set: "·" };
const FATES = { added: "added", removed: "removed", changed: "changed",
                same: "written as it was", again: "removed and made again",
                set: "written; what was there before is not known" };

class TreeView {
  constructor(app) {
    this.app = app;
    this.rows = [];
    this.hasItems = false;
    this.folds = new Folds(app.past);
    this.box = byId("tree");
    this.list = new VirtualRows(this.box, app.rowHeight, (row, index) => this.fill(row, index));
    this.focused = null; // a track
    this.box.addEventListener("click", (event) => this.click(event));
    this.box.addEventListener("keydown", (event) => this.key(event));
    byId("expand").addEventListener("click", () => this.toggleAll());
    byId("state").addEventListener("click", () => this.toggleItems());
  }

  show(isNewMoment) {
    const { past, moment, filter } = this.app;
    this.rows = treeRows(past, moment, this.folds, (track) => filter.isNear(track), this.hasItems);
    this.list.setCount(this.rows.length);
    if (isNewMoment) this.follow();
    this.list.draw();
    byId("expand").textContent = this.folds.all ? "fold" : "unfold";
    byId("state").setAttribute("aria-pressed", String(this.hasItems));
  }

  /* Something of what the moment touched is in sight. */
  follow() {
    const [from, to] = this.list.sight();
    let first = -1;
    for (let index = 0; index < this.rows.length; index++) {
      if (!this.rows[index].isTouched) continue;
      if (index >= from && index < to - 1) return;
      if (first < 0) first = index;
    }
    if (first >= 0) this.list.reveal(first);
  }

  fill(element, index) {
    const row = this.rows[index], { track } = row, fate = fateOf(row);
    const version = row.after ?? row.before;
    element.className = `row ${fate}`;
    element.classList.toggle("missing", version === null && !track.isItem);
    element.classList.toggle("selected", track === this.app.track);
    element.classList.toggle("focused", track === this.focused);
    element.id = `tree-${index}`;
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-level", row.depth + 1);
    element.setAttribute("aria-selected", track === this.app.track);
    if (row.count) element.setAttribute("aria-expanded", row.isOpen);
    else element.removeAttribute("aria-expanded");
    element.dataset.path = track.key;
    element.style.setProperty("--depth", row.depth);
    element.title = version && version.value.length > 40 ? `${track.key}\n${version.value}`
      : track.key;
    const name = track.key === ITEMS ? "the server's own items" : track.name;
    const folded = row.count && !row.isOpen ? make("span", "folded", `${row.count}`) : null;
    element.replaceChildren(
      make("span", "fold", row.count ? (row.isOpen ? "▾" : "▸") : ""),
      make("span", "sign", SIGNS[fate] ?? ""),
      make("span", "name", name), ...(folded ? [folded] : []), ...valueParts(row, fate),
      make("span", "perms", ...permsParts(row, fate)));
    if (fate) element.querySelector(".sign").title = FATES[fate];
  }

  click(event) {
    const index = this.list.indexOf(event);
    if (index < 0) return;
    const row = this.rows[index];
    this.focused = row.track;
    if (event.target.closest(".fold, .folded") && row.count) this.toggle(row);
    else this.app.select(row.track === this.app.track ? null : row.track);
  }

  toggle(row) {
    this.folds.choose(row.track, !row.isOpen);
    this.show(false);
  }

  toggleAll() {
    this.folds.chooseAll(this.folds.all !== true);
    this.show(true);
  }

  toggleItems() {
    this.hasItems = !this.hasItems;
    this.show(false);
    if (this.hasItems) {
      this.list.reveal(this.rows.findIndex((row) => row.track.key === ITEMS));
      this.list.draw();
    }
  }

  /* The keys of a tree, as the ARIA practices have them. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.rows.length === 0) return;
    const at = this.rows.findIndex((row) => row.track === this.focused);
    const row = this.rows[Math.max(at, 0)];
    let to = at;
    if (event.key === "ArrowDown") to = Math.min(at + 1, this.rows.length - 1);
    else if (event.key === "ArrowUp") to = Math.max(at - 1, 0);
    else if (event.key === "ArrowRight") {
      if (row.count && !row.isOpen) this.toggle(row);
      else if (row.isOpen) to = at + 1;
    } else if (event.key === "ArrowLeft") {
      if (row.isOpen) this.toggle(row);
      else if (row.track.parent) to = this.rows.findIndex((one) => one.track === row.track.parent);
    } else if (event.key === "Enter" || event.key === " ") this.app.select(row.track);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.focused = this.rows[Math.max(to, 0)].track;
    this.list.reveal(Math.max(to, 0));
    this.box.setAttribute("aria-activedescendant", `tree-${Math.max(to, 0)}`);
    this.list.draw();
  }
}

/* The value, or what it was and what it is. */
function valueParts(row, fate) {
  const { before, after, track } = row;
  if (before === null && after === null) {
    return track.isItem || row.depth === 0 ? [] : [make("span", "lost", "not known")];
  }
  const quoted = (version) => (track.isItem ? version.value : `"${version.value}"`);
  if (fate === "changed" && before.value !== after.value) {
    return [make("span", "value", make("del", "", quoted(before)),
                 make("span", "arrow", " → "), make("ins", "", quoted(after)))];
  }
  const version = after ?? before;
  if (fate === "set") {
    return [make("span", "value", make("span", "unknown", "?"), make("span", "arrow", " → "),
                 make("ins", "", quoted(version)))];
  }
  return version.value || track.isItem ? [make("span", "value", quoted(version))] : [];
}

function permsParts(row, fate) {
  const { before, after } = row;
  if (fate === "changed" && before.perms !== after.perms) {
    return [make("del", "", before.perms), make("span", "arrow", " → "),
            make("ins", "", after.perms)];
  }
  return [(after ?? before)?.perms ?? ""];
}
