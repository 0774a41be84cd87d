// Vectors of a sample in two dimensions. A colour has a shape, too.

const SHAPES = [
  "M-9,0a9,9 0 1,0 18,0a9,9 0 1,0 -18,0", "M-8,-8h16v16h-16z", "M0,-10l9.5,17h-19z", "M0,-11l9,11l-9,11l-9,-11z",
  "M0,10l9.5,-17h-19z", "M-4,-10h8v6h6v8h-6v6h-8v-6h-6v-8h6z", "M-10,-6l10,-5l10,5v12l-10,5l-10,-5z", "M-7,0a7,7 0 1,0 14,0a7,7 0 1,0 -14,0",
];
const shapeOf = (label) => SHAPES[label < 0 ? 7 : label % 8];
const toneOf = (label) => (label < 0 ? 8 : Math.min(label, 7));

const map = byId("map");
if (map) {
  const [which, colour] = [byId("map-which"), byId("map-colour")];
  const explained = new Set(DATA.entities.map((one) => `${one.kind}/${one.id}`));
  let [current, colouring, points, here, hidden] = [null, null, [], -1, new Set()];

  const nameOf = (n) => (current.ids.length ? `${current.kind} ${current.ids[n]}` : `one ${current.kind}`);
  const isExplained = (n) => !DATA.anonymous && explained.has(`${current.kind}/${current.ids[n]}`);

  function tell(n) {
    if (here >= 0 && points[here]) points[here].classList.remove("here");
    here = n;
    if (n < 0) return;
    points[n].classList.add("here");
    const label = colouring ? colouring.of[n] : -1;
    const value = label >= 0 ? colouring.labels[label] : "none of these";
    byId("map-told").textContent = nameOf(n) + (colouring ? `: ${colouring.name}: ${value}` : "") + (isExplained(n) ? " (Enter opens it)" : "");
  }

  function draw() {
    here = -1;
    byId("map-told").textContent = "";
    points = current.x.map((x, n) => {
      const label = colouring ? colouring.of[n] : 0;
      const scale = isExplained(n) ? " scale(1.5)" : "";
      return drawing("path", {
        d: shapeOf(label), transform: `translate(${x},${1000 - current.y[n]})${scale}`,
        class: `p${toneOf(label)}${hidden.has(label) ? " away" : ""}`, "data-n": n,
      });
    });
    map.replaceChildren(...points);
    const [first, second] = current.explained;
    const whole = new Set(current.ids).size === current.of || current.x.length === current.of;
    byId("map-axes").textContent = `${count(current.x.length, "point")}, ${whole ? "all" : "a sample of"} ${count(current.of, current.kind)}. ` +
      `The components keep ${percent(first)} and ${percent(second)} of the variance.`;
  }

  function legend() {
    const box = byId("map-legend");
    box.replaceChildren();
    if (!colouring) return;
    const labels = [...colouring.labels.keys(), -1].filter((label) => colouring.of.includes(label));
    box.append(...labels.map((label) => {
      const sign = drawing("svg", { viewBox: "-12 -12 24 24", "aria-hidden": "true" });
      sign.append(drawing("path", { d: shapeOf(label), class: `p${toneOf(label)}` }));
      const many = colouring.of.filter((one) => one === label).length;
      return element("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
        if (hidden.delete(label)) event.currentTarget.setAttribute("aria-pressed", "true");
        else { hidden.add(label); event.currentTarget.setAttribute("aria-pressed", "false"); }
        draw();
      } }, sign, `${label < 0 ? "none of these" : colouring.labels[label]} (${number(many)})`);
    }));
  }

  function chooseColour() {
    colouring = current.colours[Number(colour.value)] || null;
    hidden = new Set();
    legend();
    draw();
  }

  function chooseMap() {
    const before = colouring && colouring.name;
    current = DATA.maps[Number(which.value)];
    colour.replaceChildren(...current.colours.map((one, n) => element("option", { value: n }, one.name)));
    const same = current.colours.findIndex((one) => one.name === before);
    colour.value = String(Math.max(same, 0));
    colour.disabled = current.colours.length < 2;
    chooseColour();
  }

  const enter = () => { if (here >= 0 && isExplained(here)) openEntity(current.kind, current.ids[here]); };
  // the nearest point in a direction: what lies aside counts double
  function towards(dx, dy) {
    const visible = points.map((_, n) => n).filter((n) => !points[n].classList.contains("away"));
    if (here < 0) return visible.length ? visible[0] : -1;
    let [best, least] = [here, Infinity];
    for (const n of visible) {
      const [x, y] = [current.x[n] - current.x[here], current.y[here] - current.y[n]];
      const along = x * dx + y * dy;
      const far = along + 2 * Math.abs(x * dy - y * dx);
      if (n !== here && along > 0 && far < least) [best, least] = [n, far];
    }
    return best;
  }
  map.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (way) { event.preventDefault(); tell(towards(...way)); } else if (event.key === "Enter") enter();
  });
  map.addEventListener("pointerover", (event) => { if (event.target.dataset.n) tell(Number(event.target.dataset.n)); });
  map.addEventListener("click", (event) => { if (event.target.dataset.n) { tell(Number(event.target.dataset.n)); enter(); } });
  which.addEventListener("change", chooseMap);
  colour.addEventListener("change", chooseColour);
  which.replaceChildren(...DATA.maps.map((one, n) => element("option", { value: n }, one.title)));
  chooseMap();
}
