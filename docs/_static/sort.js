// Tables inside .sortable: a button in each head cell sorts by that column, and again the other way round. Where one
// has verdicts, a menu above it leaves the rows of one verdict; a link to another row shows all again.
function filterBy(column, table) {
  const parts = (row) => row.cells[column].textContent.trim().replace(/ by .*/, "").split(", ");
  const rows = [...table.tBodies[0].rows];
  const counts = new Map();
  rows.flatMap(parts).forEach((part) => counts.set(part, (counts.get(part) ?? 0) + 1));
  const menu = document.createElement("select");
  menu.autocomplete = "off";
  menu.add(new Option(`all (${rows.length})`, ""));
  counts.forEach((count, part) => menu.add(new Option(`${part} (${count})`, part)));
  const label = document.createElement("label");
  label.append("Verdict: ", menu);
  table.closest(".sortable").prepend(label);
  const show = () => rows.forEach((row) => (row.hidden = menu.value !== "" && !parts(row).includes(menu.value)));
  menu.addEventListener("change", show);
  addEventListener("hashchange", () => {
    menu.value = "";
    show();
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".sortable table")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const verdicts = heads.findIndex((head) => head.textContent.trim() === "verdict");
    if (verdicts >= 0) filterBy(verdicts, table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const text = (row) => row.cells[column].textContent.trim();
        const number = (row) => parseFloat(text(row).replace("−", "-")); // that a cell begins with, or NaN
        const inOrder = (a, b) => number(a) - number(b) || text(a).localeCompare(text(b), "en", { numeric: true });
        const empty = (row) => text(row) === "–"; // these rows come last
        body.append(...[...body.rows].sort((a, b) => empty(a) - empty(b) || sign * inOrder(a, b)));
      });
    });
  }
});
