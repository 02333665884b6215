"use strict";
// A click on a head sorts the board by its column, best first; another click turns it round.
document.querySelectorAll(".vcc-board table:not([data-sorts])").forEach(table => {
  table.dataset.sorts = "yes";
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].firstChild?.textContent ?? "";
    return column === 1 ? text : parseFloat(text);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const best = head.dataset.best === "less" ? "ascending" : "descending";
      const other = best === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === best ? other : best;
      heads.forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map(row => [value(row, column), row]);
      rows.sort(([a], [b]) => {
        if (column === 1) return sign * a.localeCompare(b);
        return isNaN(a) - isNaN(b) || sign * (a - b) || 0; // what is missing comes last
      });
      body.append(...rows.map(([, row]) => row));
      table.classList.toggle("sorted", column !== 0 || order === "descending");
    });
  });
});
