// Groups as boxes whose area is the number of members (squarified: Bruls, Huizing, van Wijk, 2000).

function squarified(sizes, width, height) {
  const whole = sizes.reduce((sum, size) => sum + size, 0) || 1;
  const boxes = [];
  let [x, y, w, h, from] = [0, 0, width, height, 0];
  const worst = (row, sum, side) => {
    const depth = sum / side;
    return Math.max(...row.map((area) => Math.max(depth * depth / area, area / (depth * depth))));
  };
  const areas = sizes.map((size) => Math.max(size, 1e-9) * width * height / whole);
  while (from < areas.length) {
    const side = Math.max(Math.min(w, h), 1e-6);
    let [to, sum, best] = [from, 0, Infinity];
    while (to < areas.length) {
      const ratio = worst(areas.slice(from, to + 1), sum + areas[to], side);
      if (ratio > best) break;
      best = ratio;
      sum += areas[to];
      to += 1;
    }
    const depth = sum / side;
    let at = 0;
    for (const area of areas.slice(from, to)) {
      const length = area / depth;
      boxes.push(w >= h ? [x, y + at, depth, length] : [x + at, y, length, depth]);
      at += length;
    }
    if (w >= h) { x += depth; w -= depth; } else { y += depth; h -= depth; }
    from = to;
  }
  return boxes;
}

const tree = byId("tree");
if (tree) {
  const tabs = byId("tree-tabs");
  const names = Object.keys(DATA.groups);
  let way = []; // from the root of a kind to what is open

  const open = (node, tone) => {
    if (node.parts) { way.push([node, tone]); draw(true); } else tell(node);
  };
  const back = (depth) => { way = way.slice(0, depth); draw(true); };

  function tell(node) {
    const detail = byId("tree-detail");
    const members = DATA.entities.filter((one) => node.group && (one.groups || []).some((group) => group.group === node.group));
    detail.replaceChildren(
      element("h3", {}, node.name),
      element("p", { class: "dim" }, count(node.size, "member") + (node.group && node.group !== node.name ? `, id ${node.group}` : "")),
      ...(node.items ? [element("p", {}, "Shown by: " + node.items.join(" / "))] : []),
      ...(node.text ? [element("blockquote", {}, node.text)] : []),
      ...(members.length ? [element("p", {}, "Members in the sample:"), element("div", { class: "controls" },
        ...members.map((one) => element("button", { type: "button", onclick: () => openEntity(one.kind, one.id) }, one.id)))] : []),
    );
  }

  function draw(focus) {
    const [node] = way[way.length - 1];
    byId("tree-path").replaceChildren(...way.flatMap(([one, , name], depth) => {
      const label = depth === 0 ? `all ${name}` : `${one.name} (${count(one.groups, "group")})`;
      const last = depth === way.length - 1;
      const step = last ? element("span", { "aria-current": "location" }, label)
        : element("button", { type: "button", onclick: () => back(depth + 1) }, label);
      return depth ? [element("span", { "aria-hidden": "true" }, "›"), step] : [step];
    }));
    byId("tree-detail").replaceChildren();
    const parts = [...(node.parts || [node])].sort((one, other) => other.size - one.size);
    const boxes = squarified(parts.map((one) => one.size), tree.clientWidth, tree.clientHeight);
    tree.replaceChildren(...parts.map((part, n) => {
      const tone = way.length > 1 ? (way[1][1] + n) % 8 : n % 8;
      const [x, y, w, h] = boxes[n];
      const many = part.parts ? `${count(part.groups, "group")}, ` : "";
      const box = element("button", {
        type: "button", class: `t${tone}${w < 42 || h < 22 ? " tiny" : ""}`, title: `${part.name}: ${many}${count(part.size, "member")}`,
        "aria-label": `${part.name}: ${many}${count(part.size, "member")}${part.parts ? ", opens" : ""}`,
        onclick: () => open(part, tone),
      }, element("b", {}, part.name), element("span", {}, many + number(part.size)));
      Object.assign(box.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
      return box;
    }));
    if (focus && tree.firstChild) tree.firstChild.focus({ preventScroll: true });
  }

  const choose = (name) => {
    way = [[DATA.groups[name], 0, name]];
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.value === name));
    draw(false);
  };
  tabs.replaceChildren(...names.map((name) => element("button", { type: "button", value: name, onclick: () => choose(name) }, name)));
  tree.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && way.length > 1) back(way.length - 1);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const boxes = [...tree.children];
    boxes[(boxes.indexOf(document.activeElement) + step + boxes.length) % boxes.length].focus();
  });
  choose(names[0]);
  new ResizeObserver(() => draw(false)).observe(tree);
}
