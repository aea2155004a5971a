// Tables within an element of class "sortable": a line to search in above them, and a click on a heading sorts.

function sortable(table) {
  const body = table.tBodies[0];
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Show rows with ...";
  search.setAttribute("aria-label", "Show the rows of the table that have these words");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.closest(".sortable").prepend(search);

  const original = [...body.rows];
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      let rows = original;
      if (before !== "descending") {
        const sign = before === "ascending" ? -1 : 1;
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const value = (row) => row.cells[column].textContent;
        rows = [...original].sort((a, b) => sign * value(a).localeCompare(value(b), undefined, { numeric: true }));
      }
      body.append(...rows);
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".sortable table").forEach(sortable);
});
