// One user or item, as `reki explain` tells of it.

const form = byId("entity-form");

function openEntity(kind, id) {
  const wanted = `#entity/${kind}/${encodeURIComponent(id)}`;
  if (window.location.hash !== wanted) window.location.hash = wanted;
  showAt(wanted);
}

function showAt(hash) {
  const [, kind, id] = hash.match(/^#entity\/(user|item)\/(.*)$/) || [];
  if (!form || !kind) return;
  let told = id;
  try { told = decodeURIComponent(id); } catch { /* as it stands */ }
  byId("entity-kind").value = kind;
  offer();
  byId("entity-id").value = told;
  const found = DATA.entities.find((one) => one.kind === kind && one.id === told);
  byId("entity-shown").replaceChildren(...(found ? toldOf(found) : [element("p", { class: "empty" },
    `No ${kind} ${told} is in this report's sample; reki explain ${kind} ID tells of any.`)]));
  byId("entity").scrollIntoView();
}

function offer() {
  const kind = byId("entity-kind").value;
  const ids = DATA.entities.filter((one) => one.kind === kind).map((one) => one.id);
  byId("entity-ids").replaceChildren(...ids.map((id) => element("option", { value: id })));
  byId("entity-id").placeholder = ids.length ? `such as ${ids[0]}` : `no ${kind} is explained`;
}

function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return element("dl", { class: "facts" }, ...told.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function prompt(one) {
  const about = one.about ? `about ${one.about}, ` : "";
  return element("details", {},
    element("summary", {}, `Prompt ${about}${one.channel}, as of ${day(one.as_of)}: ${one.state}${one.is_knowledge ? "" : ", not what is known now"}`),
    facts([
      ["model", one.model], ["answered", day(one.answered)],
      ["price", `${number(one.cost) || "0"}, ${count(one.calls, "call")}, ${count(one.tokens, "token")}`],
      ["gates", one.gate ? `failed ${one.gate}${one.fault ? `: ${one.fault}` : ""}` : "passed"], ["coverage", percent(one.coverage)],
    ]),
    ...[["As sent", [one.system, one.prompt].filter(Boolean).join("\n\n")], ["Answer", one.answer]]
      .filter(([, text]) => text).flatMap(([name, text]) => [element("p", { class: "dim" }, name), element("pre", {}, text)]));
}

// The latest interactions; the others behind a line that opens.
function history(list) {
  const columns = [["", "place"], ["item", "item"], ["title", "title"], ["said", "said"]];
  if (!list.length) return [];
  const [early, late] = [list.slice(0, -8), list.slice(-8)];
  return part("History that is shown", tableOf(late, columns),
    early.length ? element("details", {}, element("summary", {}, count(early.length, "earlier interaction")), tableOf(early, columns)) : null);
}

function part(name, ...children) {
  return children.length ? [element("h3", {}, name), ...children.filter(Boolean)] : [];
}

function toldOf(one) {
  const rows = (name, list, columns) => (list && list.length ? part(name, tableOf(list, columns)) : []);
  const vector = one.vector;
  return [
    element("h3", {}, `${one.kind} ${one.id}`),
    element("p", { class: "answer" }, one.answer || `a request gets: ${one.outcome}`),
    ...(one.notes || []).map((note) => element("p", { class: "dim" }, note)),
    ...(one.description ? part("Description", element("blockquote", {}, one.description)) : []),
    ...history(one.history || []),
    ...(one.prompts.length ? part("Prompts", ...one.prompts.map(prompt)) : []),
    ...rows("Groups", one.groups, one.groups.length && one.groups[0].group
      ? [["group", "group"], ["of", "of"], ["members", "size"], ["name", "name"], ["shown by", (row) => row.items.slice(0, 3).join(" / ")]]
      : [["of", "of"], ["members", "size"]]),
    ...(one.paths || []).flatMap((path) => rows(`Way into ${path.of}`, path.nodes,
      [["step", "step"], ["members", "members"], ["groups", "groups"], ["mostly", (row) => row.name || row.mostly], ["share", (row) => percent(row.share)]])),
    ...rows("What is known", one.factors, [["factor", (row) => row.factor || row.channel], ["text", "text"], ["as of", (row) => day(row.as_of)], ["model", "model"]]),
    ...rows("Representation", one.channels, [["channel", "channel"], ["floats", "floats"]]),
    ...(vector ? part("Augmented vector", facts([["space", vector.space], ["as of", day(vector.as_of)], ["made", day(vector.made)],
      ["floats", vector.floats], ["norm", number(vector.norm)], ["encoder", vector.encoder], ["weights", vector.weights]])) : []),
    ...rows("Offline and online", one.views, [["view", "view"], ["space", "space"], ["offline", (row) => day(row.offline)], ["online", (row) => day(row.online)],
      ["equal", "equal"], ["a request gets", "serves"], ["why", "why"]]),
    ...rows("Nearest items by match score", one.nearest, [["", "place"], ["item", "item"], ["title", "title"], ["score", "score"]]),
  ];
}

if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    openEntity(byId("entity-kind").value, byId("entity-id").value.trim());
  });
  byId("entity-kind").addEventListener("change", () => { byId("entity-id").value = ""; offer(); });
  if (!DATA.entities.some((one) => one.kind === "user")) byId("entity-kind").value = "item";
  offer();
  window.addEventListener("hashchange", () => showAt(window.location.hash));
  showAt(window.location.hash);
}
