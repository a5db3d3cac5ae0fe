"use strict";
document.documentElement.classList.add("js");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

// Pictures: a dialog with a slider between before and after.
const dialog = one("#viewer");
let shown = null;

function visiblePairs() {
  return all(".pair").filter((pair) => !pair.hidden && pair.dataset.both === "yes");
}

function show(pair) {
  shown = pair;
  const [before, after] = all("img", pair);
  const [under, over] = all("img", dialog);
  under.src = before.src;
  under.alt = before.alt;
  over.src = after.src;
  over.alt = after.alt;
  one("figcaption", dialog).replaceChildren(...one("figcaption", pair).cloneNode(true).childNodes);
  const pairs = visiblePairs();
  one(".place", dialog).textContent = `${pairs.indexOf(pair) + 1} of ${pairs.length}`;
  if (!dialog.open) dialog.showModal();
  one("input", dialog).focus();
}

function cut(value) {
  one(".compare", dialog).style.setProperty("--cut", `${value}%`);
}

function turn(by) {
  const pairs = visiblePairs();
  show(pairs[(pairs.indexOf(shown) + by + pairs.length) % pairs.length]);
}

if (dialog) {
  all(".pair").forEach((pair) => {
    if (pair.dataset.both === "yes") one(".view", pair).addEventListener("click", () => show(pair));
  });
  const range = one("input", dialog);
  range.addEventListener("input", () => cut(range.value));
  one(".compare", dialog).addEventListener("pointermove", (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    range.value = (100 * (event.clientX - box.left)) / box.width;
    cut(range.value);
  });
  one(".previous", dialog).addEventListener("click", () => turn(-1));
  one(".next", dialog).addEventListener("click", () => turn(1));
  one(".close", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => one(".view", shown).focus());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "n" || event.key === "PageDown") turn(1);
    else if (event.key === "p" || event.key === "PageUp") turn(-1);
    else return;
    event.preventDefault();
  });
}

// Pictures: words to look for, and misses only.
const words = one("#find-pictures");
const misses = one("#misses");
function filterPairs() {
  const wanted = words.value.trim().toLowerCase();
  all(".gallery").forEach((gallery) => {
    all(".pair", gallery).forEach((pair) => {
      const named = pair.textContent.toLowerCase().includes(wanted);
      pair.hidden = !named || (misses.checked && !pair.classList.contains("miss"));
    });
    const more = one("details.more", gallery);
    if (more && (wanted || misses.checked)) more.open = true;
    one(".nothing", gallery).hidden = all(".pair", gallery).some((pair) => !pair.hidden);
  });
}
if (words) {
  words.addEventListener("input", filterPairs);
  misses.addEventListener("change", filterPairs);
}

// Text to copy.
all("[data-copy]").forEach((button) =>
  button.addEventListener("click", async () => {
    const text = one(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(one(button.dataset.copy));
      button.textContent = "Selected";
    }
  }),
);

// Contents: where the reader is.
const links = all("nav a");
if (links.length) {
  const sections = links.map((link) => one(link.getAttribute("href")));
  const mark = () => {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < 140);
    const current = passed.at(-1) ?? sections[0];
    links.forEach((link, index) => link.classList.toggle("here", sections[index] === current));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// Sweep: sort by a column, filter by words, choose a job in one view and see it in all.
function sortKey(row, column) {
  const key = row.cells[column].dataset.key;
  return key === "" || Number.isNaN(Number(key)) ? key : Number(key);
}

function order(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a === typeof b) return a < b ? -1 : Number(a > b);
  return typeof a === "number" ? -1 : 1;
}

function sortTable(head) {
  const body = one("tbody", head.closest("table"));
  const rising = head.getAttribute("aria-sort") === "descending" || !head.hasAttribute("aria-sort");
  const rows = all("tr", body).sort((first, second) => {
    const [a, b] = [sortKey(first, head.cellIndex), sortKey(second, head.cellIndex)];
    return a === "" || b === "" ? order(a, b) : (rising ? 1 : -1) * order(a, b);
  });
  all("th[aria-sort]", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  body.append(...rows);
}

all("th button").forEach((button) =>
  button.addEventListener("click", () => sortTable(button.closest("th"))),
);

const jobs = one("#find-jobs");
if (jobs) {
  jobs.addEventListener("input", () => {
    const wanted = jobs.value.trim().toLowerCase();
    all("tr.job").forEach((row) => {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  });
}

all("[data-job]").forEach((mark) => {
  const choose = () => {
    const chosen = !mark.classList.contains("chosen");
    all("[data-job]").forEach((other) => {
      const same = other.dataset.job === mark.dataset.job;
      other.classList.toggle("chosen", same && chosen);
      other.setAttribute(other.tagName === "TR" ? "aria-selected" : "aria-pressed", same && chosen);
    });
  };
  mark.addEventListener("click", (event) => event.target.closest("button") || choose());
  mark.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose();
  });
});
