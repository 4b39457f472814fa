// SPDX-License-Identifier: Apache-2.0
/* A list of any length of which only the rows in sight are elements.
 *
 * R1. Rows have one height, set by the style sheet as --row; they are made once, and filled again.
 * R2. Where the box is scrolled to and how high it is, is remembered: to ask it costs a layout.
 * Knows nothing of what is in a row: `fill(element, index)` does. */
"use strict";

const ROWS_AROUND = 4; // above and below what is in sight

class VirtualRows {
  constructor(box, rowHeight, fill) {
    this.box = box;
    this.rowHeight = rowHeight;
    this.fill = fill;
    this.count = 0;
    this.pool = [];
    this.room = make("div", "room");
    box.append(this.room);
    this.height = box.clientHeight;
    this.top = 0;
    box.addEventListener("scroll", () => {
      this.top = box.scrollTop;
      this.draw();
    }, { passive: true });
    new ResizeObserver(() => {
      this.height = box.clientHeight;
      this.draw();
    }).observe(box);
  }

  setCount(number) {
    if (number !== this.count) {
      this.count = number;
      this.top = Math.min(this.top, this.lowest);
      this.room.style.height = `${number * this.rowHeight}px`;
    }
  }

  /* How far one can scroll. */
  get lowest() {
    return Math.max(this.count * this.rowHeight - this.height, 0);
  }

  /* The rows in sight: [first, last). */
  sight() {
    const { top, height, rowHeight } = this;
    return [Math.floor(top / rowHeight), Math.ceil((top + height) / rowHeight)];
  }

  draw() {
    const [from, to] = this.sight();
    const first = Math.max(from - ROWS_AROUND, 0);
    const last = Math.min(to + ROWS_AROUND, this.count);
    const needed = Math.max(last - first, 0);
    while (this.pool.length < needed) {
      const row = make("div", "row");
      this.pool.push(row);
      this.room.append(row);
    }
    this.pool.forEach((row, slot) => {
      row.hidden = slot >= needed;
      if (slot < needed) {
        row.style.transform = `translateY(${(first + slot) * this.rowHeight}px)`;
        row.dataset.index = first + slot;
        this.fill(row, first + slot);
      } else {
        delete row.dataset.index;
      }
    });
  }

  /* Scroll so that a row is in sight with some around it; stays if it is. */
  reveal(index) {
    const [from, to] = this.sight();
    if (index > from && index < to - 2) return;
    const middle = index * this.rowHeight - (this.height - this.rowHeight) / 2;
    this.top = Math.min(Math.max(middle, 0), this.lowest);
    this.box.scrollTop = this.top;
  }

  /* The index of the row that an event was in; -1 if in none. */
  indexOf(event) {
    const row = event.target.closest(".row");
    return row && row.dataset.index !== undefined ? Number(row.dataset.index) : -1;
  }

  /* Rows that fit into the box. */
  get page() {
    return Math.max(Math.floor(this.height / this.rowHeight) - 1, 1);
  }
}
