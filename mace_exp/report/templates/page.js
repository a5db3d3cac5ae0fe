"use strict";
document.documentElement.classList.add("js");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

// Pictures: a dialog with a slider between before and after.
const dialog = one("#viewer");
let shown = null;

// The two pictures of a view: its first and last, or the column's original and the view's picture.
function pictures(view) {
  const own = all("img", view);
  if (own.length > 1) return [own[0], own.at(-1)];
  const row = view.closest("tr[data-original]");
  const column = view.closest("td")?.cellIndex;
  const original = row && one("img", document.getElementById(row.dataset.original).cells[column]);
  return original && own.length ? [original, own[0]] : null;
}

function views() {
  return all(".view").filter((view) => !view.closest("[hidden]") && pictures(view));
}

function caption(view) {
  const own = one("figcaption", view.closest("figure") ?? view);
  if (own) return [...own.cloneNode(true).childNodes];
  const cell = view.closest("td");
  const head = cell.closest("table").tHead.rows[1].cells[cell.cellIndex];
  const job = one("th", cell.parentNode).cloneNode(true);
  all("span span", job).forEach((each) => each.prepend(" · "));
  const place = document.createElement("span");
  place.textContent = ` · job ${job.textContent}`;
  const reading = document.createElement("span");
  reading.className = "reading";
  reading.textContent = view.dataset.reading ?? "";
  return [...head.cloneNode(true).childNodes, place, reading];
}

function show(view) {
  shown = view;
  all("img", dialog).forEach((img, index) => {
    const picture = pictures(view)[index];
    img.src = picture.src;
    img.alt = picture.alt;
  });
  one("figcaption", dialog).replaceChildren(...caption(view));
  const others = views();
  one(".place", dialog).textContent = `${others.indexOf(view) + 1} of ${others.length}`;
  if (!dialog.open) dialog.showModal();
  one("input", dialog).focus();
}

function cut(value) {
  one(".compare", dialog).style.setProperty("--cut", `${value}%`);
}

function turn(by, among = views()) {
  show(among[(among.indexOf(shown) + by + among.length) % among.length]);
}

// In a table: the same column of the next row.
function turnRow(by) {
  const column = shown.closest("td").cellIndex;
  turn(by, views().filter((view) => view.closest("td")?.cellIndex === column));
}

function turnByKey(event) {
  const inTable = shown.closest("td");
  if (event.key === "n" || event.key === "PageDown") turn(1);
  else if (event.key === "p" || event.key === "PageUp") turn(-1);
  else if (inTable && event.key === "ArrowDown") turnRow(1);
  else if (inTable && event.key === "ArrowUp") turnRow(-1);
  else return;
  event.preventDefault();
}

if (dialog) {
  all(".view").forEach((view) => {
    if (pictures(view)) view.addEventListener("click", () => show(view));
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
  dialog.addEventListener("close", () => shown.focus());
  dialog.addEventListener("keydown", turnByKey);
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

// Contents: mark the current section.
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
