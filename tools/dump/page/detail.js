// SPDX-License-Identifier: Apache-2.0
/* The moment in full: who, what, why a life ended; and the history of the node that was chosen. */
"use strict";

const DIFFERENCES_SHOWN = 100;
const HISTORY_SHOWN = 200;

class DetailView {
  constructor(app) {
    this.app = app;
    this.box = byId("detail");
  }

  show(isNewMoment) {
    const { app } = this, { moment } = app;
    const parts = [this.head(moment), this.facts(moment)];
    if (moment.lines) parts.push(endingOf(moment));
    if (moment.kind === LOST) parts.push(make("p", "warning",
      "These bytes of the log do not verify. What they said is lost: the states from here on may "
      + "lack it, until they are proven whole again."));
    if (moment.kind === CHANGE && moment.isQuiet) {
      parts.push(make("p", "dim", "The tree is as it was: the server's own items only."));
    }
    if (moment.touched.length) parts.push(this.differences(moment));
    if (app.track) parts.unshift(this.history(app.track));
    this.box.replaceChildren(...parts);
    byId("side").classList.toggle("has-node", app.track !== null);
    if (isNewMoment) this.box.scrollTop = 0;
    const here = this.box.querySelector(".here");
    if (here) here.parentNode.scrollTop = here.offsetTop - here.parentNode.clientHeight / 2;
  }

  head(moment) {
    const title = make("h3", "", titleOf(moment));
    if (isTransaction(moment)) title.append(make("span", "badge", "transaction"));
    if (moment.kind === BEGUN && !moment.isClean) {
      title.append(make("span", "badge bad", "after a crash"));
    }
    if (moment.kind === LOST) title.append(make("span", "badge bad", "damage"));
    if (!moment.isWhole) title.append(make("span", "badge warn", "state not proven whole"));
    return title;
  }

  facts(moment) {
    const { past } = this.app, list = make("dl", "facts");
    const add = (name, ...value) => list.append(make("dt", "", name), make("dd", "", ...value));
    const before = past.moments[moment.index - 1];
    if (moment.time) {
      add("when", `${dayText(moment.time)} ${timeText(moment.time)} `,
          make("span", "dim", zoneText(moment.time)),
          make("span", "dim", before ? `  +${elapsedText(moment.time - before.time)}` : ""));
    }
    if (moment.kind === CHANGE && !moment.isServer) {
      add("who", `domain ${moment.domid}`, make("span", "dim", ` · connection ${moment.conn}`
          + (moment.pid ? ` · pid ${moment.pid}` : " · ring") + ` · request ${moment.request}`));
    } else if (moment.kind === CHANGE) {
      add("who", "the server itself");
    }
    if (moment.kind !== PRESENT) {
      const step = moment.steps > 1 ? `, step ${moment.step + 1} of ${moment.steps}` : "";
      add(moment.kind === LOST ? "behind" : "record", `${moment.sequence}`,
          make("span", "dim", `${step} · life ${past.lifeAt(moment.index).number}`));
    }
    if (moment.kind === LOST) {
      add("where", `log position 0x${moment.position.toString(16)}`,
          make("span", "dim", ` · ${moment.size.toLocaleString("en")} bytes`));
    } else if (moment.kind === SEALED) {
      add("state of", `record ${moment.sealed}`);
      add("commit", make("code", "", moment.commit));
      add("tree", make("code", "", moment.tree));
      add("parent", make("code", "", moment.parent || "none"));
    } else if (moment.kind === CARRIED) {
      add("carried", gistOf(moment), make("span", "dim",
          " · live state, appended again, so that the oldest end of the log is free"));
    }
    return list;
  }

  differences(moment) {
    const at = moment.index, box = make("ul", "differences");
    const rows = moment.touched.map((track) => ({
      track, isTouched: true, depth: track.depth, wasWhole: moment.wasWhole,
      before: track.at(at - 1), after: track.at(at) }));
    if (moment.puts === 0) rows.reverse(); // removals are recorded from the bottom
    const nodes = rows.filter((row) => !row.track.isItem);
    for (const row of [...nodes, ...rows.filter((one) => one.track.isItem)]
      .slice(0, DIFFERENCES_SHOWN)) {
      box.append(this.difference(row));
    }
    const more = rows.length - DIFFERENCES_SHOWN;
    if (more > 0) box.append(make("li", "dim", `and ${count(more, "more", "more")} in the tree`));
    return box;
  }

  difference(row) {
    const fate = fateOf(row);
    const path = make("button", "path", row.track.key.replace("#", ""));
    path.type = "button";
    path.title = "The history of this node";
    path.addEventListener("click", () => this.app.select(row.track));
    return make("li", fate, make("span", "sign", SIGNS[fate] ?? ""), path,
                ...valueParts(row, fate), make("span", "perms", ...permsParts(row, fate)),
                fate === "again" || fate === "set" ? make("span", "dim", FATES[fate]) : null);
  }

  /* Every version of a node, the newest first; those around the moment if they are many. */
  history(track) {
    const { app } = this, at = app.moment.index;
    const close = make("button", "close", "×");
    close.type = "button";
    close.title = "Close (Esc)";
    close.addEventListener("click", () => app.select(null));
    const box = make("ol", "history");
    const here = lastUpTo(track.times, at);
    const latest = track.times.length - HISTORY_SHOWN;
    const from = Math.max(Math.min(here - HISTORY_SHOWN / 2, latest), 0);
    const to = Math.min(from + HISTORY_SHOWN, track.times.length);
    for (let k = to - 1; k >= from; k--) box.append(this.version(track, k, k === here));
    const known = track.times.length === 0 ? "nothing is known of this node itself"
      : count(track.times.length, "version") + (to - from < track.times.length
        ? `, ${HISTORY_SHOWN} of them shown` : "");
    return make("section", "node", close, make("h3", "", track.key.replace("#", "")),
                make("p", "dim", `${known} · n and N step through them`), box);
  }

  version(track, k, isHere) {
    const { app } = this, time = track.times[k], version = track.versions[k];
    const moment = app.past.moments[time];
    const value = version === null ? make("span", "gone", "removed")
      : make("span", "value", track.isItem ? version.value : `"${version.value}"`);
    const row = make("button", "");
    row.type = "button";
    if (moment) {
      row.append(make("span", "seq", `${moment.sequence}`),
                 make("span", "time", timeText(moment.time)),
                 make("span", "who", `${askerOf(moment)} ${titleOf(moment)}`), value,
                 make("span", "perms", version ? version.perms : ""));
      row.addEventListener("click", () => app.go(time));
    } else {
      row.append(make("span", "seq", ""), make("span", "time", "before"),
                 make("span", "who", ""), value,
                 make("span", "perms", version ? version.perms : ""));
      row.disabled = true;
    }
    if (isHere) row.setAttribute("aria-current", "true");
    return make("li", isHere ? "here" : "", row);
  }
}

/* Why a life ended: the line that tells, and all that was said. */
function endingOf(moment) {
  const [first, ...rest] = moment.lines;
  while (rest.length && rest[0] === "") rest.shift();
  const box = make("div", isDeath(moment) ? "ending bad" : "ending", make("p", "first", first));
  if (rest.length) box.append(make("pre", "", rest.join("\n")));
  return box;
}
