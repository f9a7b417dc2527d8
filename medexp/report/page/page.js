"use strict";

// A button in each heading of a sortable table orders its rows: numbers as numbers, what is missing
// last either way. The value of a cell is its data-value.
function before(one, other) {
  const [a, b] = [Number(one), Number(other)];
  const numbers = !Number.isNaN(a) && !Number.isNaN(b);
  return numbers ? a - b : one.localeCompare(other, "en", { numeric: true });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const [body] = table.tBodies;
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const sign = heading.ariaSort === "ascending" ? -1 : 1;
      for (const any of headings) any.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const known = [...body.rows].filter((row) => value(row) !== "");
      const missing = [...body.rows].filter((row) => value(row) === "");
      known.sort((one, other) => sign * before(value(one), value(other)));
      body.append(...known, ...missing);
    });
  });
}

// A link to a run unfolds it.
function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", unfold);
unfold();
