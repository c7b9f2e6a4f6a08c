"use strict";
(() => {
  const CHUNK = 100; // rows that are laid out at once: 2,000 take a second
  const form = document.getElementById("filter");
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
  if (!form) return;
  const body = document.getElementById("rows");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const rows = [...body.rows].map(row => ({ row, rules: row.dataset.rules.split(" "), words: "", ...facts(row) }));
  let limit = CHUNK;

  function facts(row) {
    const { verdict, method, annotator } = row.dataset;
    return { verdict, method, annotator };
  }

  function fits(one, wanted, words) {
    if (wanted.rule && !one.rules.includes(wanted.rule)) return false;
    for (const by of ["verdict", "method", "annotator"]) if (wanted[by] && one[by] !== wanted[by]) return false;
    if (!words.length) return true;
    one.words ||= one.row.textContent.toLowerCase();
    return words.every(word => one.words.includes(word));
  }

  function show() {
    const wanted = Object.fromEntries(["rule", "verdict", "method", "annotator"].map(by => [by, form.elements[by].value]));
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const one of rows) {
      const hidden = !fits(one, wanted, words) || ++found > limit;
      if (one.row.hidden !== hidden) one.row.hidden = hidden;
    }
    const shown = Math.min(found, limit);
    count.value = shown < found ? `${shown} of ${found.toLocaleString("en")} rows` : `${found.toLocaleString("en")} row${found === 1 ? "" : "s"}`;
    more.hidden = shown === found;
  }

  function filter() {
    limit = CHUNK;
    show();
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    } catch {
      button.textContent = button.dataset.copy; // no right to the clipboard: it can be selected by hand
    }
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter)); // after the fields were reset
  more.addEventListener("click", () => {
    limit += CHUNK;
    show();
  });
  for (const link of document.querySelectorAll("[data-filter]")) {
    link.addEventListener("click", () => {
      form.reset();
      form.elements[link.dataset.filter].value = link.dataset.value;
      filter();
    });
  }
  filter();
})();
