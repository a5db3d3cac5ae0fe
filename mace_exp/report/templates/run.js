
// Pictures: text search, and misses only.
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
