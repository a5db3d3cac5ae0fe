
// A sweep: every job has a mark in every view. A chosen job gets a colour in all views; a job that
// the filter or a brush excludes is dimmed in all views.
const COLOURS = 6;
const marks = all("[data-job]");
const jobs = [...new Set(all(".jobs [data-job]").map((row) => row.dataset.job))];
const chosen = new Map(); // job -> colour, in order of choice
const brushes = new Map(); // axis -> [top, bottom]
const find = one("#find-jobs");
const onlyChosen = one("#only-chosen");

// Choosing.
function choose(job) {
  if (!chosen.delete(job)) {
    if (chosen.size === COLOURS) chosen.delete(chosen.keys().next().value);
    const taken = new Set(chosen.values());
    chosen.set(job, [...Array(COLOURS).keys()].find((colour) => !taken.has(colour)));
  }
  refresh();
}

function colourClass(job) {
  return chosen.has(job) ? `c${chosen.get(job)}` : null;
}

function chip(job) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = `pick ${colourClass(job)}`;
  button.setAttribute("aria-label", `deselect job ${job}`);
  button.append(document.createElement("i"), job);
  button.addEventListener("click", () => choose(job));
  return button;
}

function paint(mark, left) {
  const job = mark.dataset.job;
  mark.classList.remove(...[...mark.classList].filter((name) => /^c\d$/.test(name)));
  mark.classList.toggle("chosen", chosen.has(job));
  mark.classList.toggle("out", !left.has(job));
  if (chosen.has(job)) mark.classList.add(colourClass(job));
  const button = mark.tagName === "TR" ? one(".pick", mark) : mark;
  button.setAttribute("aria-pressed", chosen.has(job));
  if (mark.tagName === "TR") mark.hidden = hides(mark, left);
  else if (chosen.has(job)) mark.parentNode.append(mark); // over the others
}

// Rows above the brushes are not hidden while brushing: the page must not move under the pointer.
function hides(row, left) {
  const job = row.dataset.job;
  if (row.closest(".jobs")) return !fits(job);
  const unchosen = row.dataset.original && onlyChosen.checked && chosen.size && !chosen.has(job);
  return !left.has(job) || Boolean(unchosen);
}

function refresh() {
  const left = new Set(jobs.filter((job) => fits(job) && passes(job)));
  marks.forEach((mark) => paint(mark, left));
  document.body.classList.toggle("some", chosen.size > 0);
  one("#shown").textContent = `${left.size} of ${jobs.length} jobs`;
  one("#chosen").replaceChildren(...[...chosen.keys()].map(chip));
  one("#clear").hidden = !chosen.size && !brushes.size && !find.value;
  rovers.forEach((rover) => rover());
}

// Filtering: words, and conditions on the columns of the table.
const heads = all(".jobs thead th").map((head) => head.textContent.replace(/\u200b/g, "").toLowerCase());
const tests = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
};

function column(name) {
  const exact = heads.findIndex((head) => head === name || head.endsWith(`.${name}`));
  return exact >= 0 ? exact : heads.findIndex((head) => head.includes(name));
}

function fitsTerm(row, term) {
  const [, name, test, wanted] = term.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/) ?? [];
  const index = name ? column(name) : -1;
  if (index < 0) return row.textContent.toLowerCase().includes(term);
  const key = row.cells[index].dataset.key.toLowerCase();
  if (key === "") return false;
  const numbers = [Number(key), Number(wanted)];
  return numbers.some(Number.isNaN) ? tests[test](key, wanted) : tests[test](...numbers);
}

function fits(job) {
  const row = one(`.jobs [data-job="${CSS.escape(job)}"]`);
  const terms = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  return terms.every((term) => fitsTerm(row, term));
}

// Brushing: a job passes where its line crosses every brushed axis inside the brush.
function passes(job) {
  if (!brushes.size) return true;
  const line = one(`.parallel [data-job="${CSS.escape(job)}"]`);
  const heights = line ? line.dataset.y.split(",") : [];
  return [...brushes].every(([axis, [top, bottom]]) => {
    const y = heights[axis];
    return Boolean(y) && Number(y) >= top - 0.5 && Number(y) <= bottom + 0.5;
  });
}

function ends(scale) {
  const base = one(".base", scale);
  return [Number(base.getAttribute("y1")), Number(base.getAttribute("y2"))];
}

function brush(scale, range) {
  const rect = one(".brush", scale);
  const axis = scale.dataset.axis;
  if (range) brushes.set(axis, range);
  else brushes.delete(axis);
  rect.setAttribute("y", range ? range[0] : 0);
  rect.setAttribute("height", range ? range[1] - range[0] : 0);
  refresh();
  scale.setAttribute("aria-valuetext", range ? one("#shown").textContent : "all");
}

function brushByPointer(scale) {
  const reach = one(".reach", scale);
  const [head, foot] = ends(scale);
  const height = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY);
    const y = point.matrixTransform(scale.ownerSVGElement.getScreenCTM().inverse()).y;
    return Math.min(foot, Math.max(head, y));
  };
  let start = null;
  reach.addEventListener("pointerdown", (event) => {
    reach.setPointerCapture(event.pointerId);
    start = height(event);
    event.preventDefault();
  });
  reach.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const now = height(event);
    brush(scale, Math.abs(now - start) < 4 ? null : [Math.min(start, now), Math.max(start, now)]);
  });
  reach.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(height(event) - start) < 4) brush(scale, null);
    start = null;
  });
  reach.addEventListener("pointercancel", () => (start = null));
}

function brushByKey(event) {
  const scale = event.currentTarget;
  const [head, foot] = ends(scale);
  let [top, bottom] = brushes.get(scale.dataset.axis) ?? [head, foot];
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key] * ((foot - head) / 20);
  if (event.key === "Escape") return brush(scale, null);
  if (Number.isNaN(by)) return;
  event.preventDefault();
  if (event.shiftKey) top = Math.min(bottom, Math.max(head, top + by));
  else bottom = Math.max(top, Math.min(foot, bottom + by));
  brush(scale, top === head && bottom === foot ? null : [top, bottom]);
}

// Keyboard: a view is one stop of Tab; the arrows move from job to job within it.
const rovers = [];

function rove(container, rows) {
  let last = null;
  const stops = () => {
    const items = rows().flat();
    const current = items.includes(last) ? last : items[0];
    all("[tabindex]", container).forEach((item) => (item.tabIndex = -1));
    items.forEach((item) => (item.tabIndex = item === current ? 0 : -1));
  };
  container.addEventListener("focusin", (event) => {
    if (!rows().flat().includes(event.target)) return;
    last = event.target;
    stops();
  });
  container.addEventListener("keydown", (event) => {
    const grid = rows();
    const row = grid.findIndex((each) => each.includes(event.target));
    if (row < 0) return;
    const place = grid[row].indexOf(event.target);
    const [down, right] = {
      ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1],
    }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const next = grid[Math.min(grid.length - 1, Math.max(0, row + down))];
    next[Math.min(next.length - 1, Math.max(0, place + right))].focus();
  });
  rovers.push(stops);
}

function rowsOf(table) {
  const rows = all("tbody tr[data-job]", table).filter((row) => !row.hidden);
  return rows.map((row) => all("button", row));
}

all("table").filter((table) => one("[data-job]", table)).forEach((table) => rove(table, () => rowsOf(table)));
all("svg").filter((svg) => one("g[data-job]", svg)).forEach((svg) => {
  const place = (mark) => jobs.indexOf(mark.dataset.job);
  const marked = all("g[data-job]", svg).sort((a, b) => place(a) - place(b));
  marked.forEach((mark) => mark.setAttribute("role", "button"));
  rove(svg, () => marked.filter((mark) => !mark.classList.contains("out")).map((mark) => [mark]));
});

all(".scale").forEach((scale) => {
  scale.setAttribute("role", "slider");
  scale.setAttribute("aria-orientation", "vertical");
  scale.setAttribute("aria-valuenow", 0);
  scale.setAttribute("aria-valuetext", "all");
  scale.setAttribute("tabindex", 0);
  scale.addEventListener("keydown", brushByKey);
  brushByPointer(scale);
});

// Marks: a click or Enter chooses a job, hovering highlights it in all views.
function touch(job, on) {
  marks.forEach((mark) => mark.classList.toggle("hover", on && mark.dataset.job === job));
}

marks.forEach((mark) => {
  const job = mark.dataset.job;
  mark.addEventListener("click", (event) => event.target.closest(".view") || choose(job));
  mark.addEventListener("pointerenter", () => touch(job, true));
  mark.addEventListener("pointerleave", () => touch(job, false));
  if (mark.tagName !== "TR") {
    mark.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(job);
      mark.focus(); // it was moved in front of the others
    });
  }
});

find.addEventListener("input", refresh);
onlyChosen?.addEventListener("change", refresh);
one("#clear").addEventListener("click", () => {
  chosen.clear();
  find.value = "";
  all(".scale").forEach((scale) => brush(scale, null));
  find.focus();
});

// Sorting: numbers by value, text alphabetically, missing values last.
function sortKey(row, place) {
  const key = row.cells[place].dataset.key;
  return key === "" || Number.isNaN(Number(key)) ? key : Number(key);
}

function order(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a === typeof b) return a < b ? -1 : Number(a > b);
  return typeof a === "number" ? -1 : 1;
}

function sortTable(head) {
  const body = one("tbody", head.closest("table"));
  const rising = head.getAttribute("aria-sort") !== "ascending";
  const rows = all("tr", body).sort((first, second) => {
    const [a, b] = [sortKey(first, head.cellIndex), sortKey(second, head.cellIndex)];
    return a === "" || b === "" ? order(a, b) : (rising ? 1 : -1) * order(a, b);
  });
  all("th[aria-sort]", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  body.append(...rows);
}

all("thead th button").forEach((button) =>
  button.addEventListener("click", () => sortTable(button.closest("th"))),
);
const best = one(".jobs").dataset.best;
if (best) choose(best);
else refresh();
