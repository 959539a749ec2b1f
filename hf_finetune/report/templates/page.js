for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const number = Number(row.cells[column].textContent);
    return Number.isNaN(number) ? Infinity : number; // what is undefined comes last
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    const descending = column > 0 && now === "none" || now === "ascending";
    heads.forEach(other => other.setAttribute("aria-sort", other === head ? (descending ? "descending" : "ascending") : "none"));
    const sign = descending ? -1 : 1;
    const compare = column
      ? (a, b) => {
          const [one, other] = [value(a, column), value(b, column)];
          if (one === other) return 0;
          if (one === Infinity || other === Infinity) return one === Infinity ? 1 : -1;
          return sign * (one - other);
        }
      : (a, b) => sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent, undefined, { numeric: true });
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  unfolded.forEach(each => { each.open = true; });
});
addEventListener("afterprint", () => unfolded.forEach(each => { each.open = false; }));
