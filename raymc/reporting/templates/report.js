"use strict";
// A click (or Enter, or Space) on a header sorts the table; a second one turns the order round.
// Cells without a value stay at the end either way; equal ones keep their order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [row.cells[column].dataset.v, row]);
      keyed.sort(([a], [b]) => compare(a, b, up ? 1 : -1));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

function compare(a, b, sign) {
  if (a === undefined || b === undefined) {
    return (a === undefined) - (b === undefined);
  }
  const [x, y] = [Number(a), Number(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) {
    return sign * (x - y);
  }
  return sign * a.localeCompare(b);
}
