// SPDX-License-Identifier: Apache-2.0
/* The list of moments beside the tree: those that the filter lets through. */
"use strict";

class ListView {
  constructor(app) {
    this.app = app;
    this.box = byId("list");
    this.shown = []; // what the rows stand for: the filter may be ahead until the next frame
    this.list = new VirtualRows(this.box, app.rowHeight, (row, index) => this.fill(row, index));
    this.box.addEventListener("click", (event) => {
      const index = this.list.indexOf(event);
      if (index >= 0) app.go(this.shown[index]);
    });
  }

  show() {
    const { app } = this;
    this.shown = app.shown;
    this.list.setCount(app.shown.length);
    const at = lastUpTo(app.shown, app.moment.index);
    const isHere = app.shown[at] === app.moment.index;
    if (at >= 0) this.list.reveal(at);
    this.list.draw();
    if (isHere) this.box.setAttribute("aria-activedescendant", `list-${at}`);
    else this.box.removeAttribute("aria-activedescendant");
    const number = isHere ? (at + 1).toLocaleString("en") : "–";
    byId("place").textContent = app.shown.length === 0 ? "none match"
      : `${number} of ${app.shown.length.toLocaleString("en")}`;
  }

  fill(element, index) {
    const { app } = this;
    const moment = app.past.moments[this.shown[index]];
    const isHere = moment === app.moment;
    element.className = `row ${CLASSES[moment.kind]}`;
    element.classList.toggle("crash", isDeath(moment));
    element.classList.toggle("tx", isTransaction(moment));
    element.classList.toggle("quiet", moment.kind === CHANGE && moment.isQuiet);
    element.classList.toggle("selected", isHere);
    element.classList.toggle("later", moment.index > app.moment.index);
    element.id = `list-${index}`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", isHere);
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", this.shown.length);
    const who = make("span", "who", askerOf(moment));
    if (moment.kind === CHANGE) {
      who.style.setProperty("--lane", `var(--${app.laneOf(moment.who)})`);
    }
    const gist = gistOf(moment);
    element.title = gist;
    element.replaceChildren(
      make("span", "seq", moment.kind === PRESENT ? "" : `${moment.sequence}`),
      make("span", "time", moment.time ? timeText(moment.time) : ""),
      who, make("span", "what", isTransaction(moment) ? "transaction" : titleOf(moment)),
      make("span", moment.touched.length ? "gist" : "gist words", make("bdi", "", gist)),
      make("span", "size", sizeText(moment, "+", moment.puts),
           sizeText(moment, "−", moment.cuts)));
  }
}

const CLASSES = ["change", "begun", "ended", "sealed", "damage", "carried", "present"];

function sizeText(moment, sign, number) {
  if (number === 0 || moment.puts + moment.cuts < 2) return null;
  return make("span", sign === "+" ? "put" : "cut", `${sign}${number}`);
}
