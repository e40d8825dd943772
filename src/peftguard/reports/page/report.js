"use strict";
// Draws the report from the data block. Whatever comes from an adapter enters as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const LABELS = ["backdoored", "suspicious", "unknown", "clean"];
const SEVERITIES = ["critical", "high", "medium", "low", "info"];
const MAX_PEERS = 300;
const state = { sort: "label", down: false, figure: 0 };

const byId = (id) => document.getElementById(id);
const number = (value) => (value === null || value === undefined ? "not defined" : String(Number(value.toPrecision(4))));
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "text", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const chip = (word) => make("span", { class: `chip ${word}` }, word);
const name = (text) => make("span", { class: "name" }, text);

// The address says what is shown: #adapter=2&module=17

function address() {
  const given = new URLSearchParams(location.hash.slice(1));
  const at = (key, list) => {
    const position = given.has(key) ? Number(given.get(key)) : NaN;
    return Number.isInteger(position) && position >= 0 && position < list.length ? position : null;
  };
  const adapter = at("adapter", data.results) ?? (data.results.length === 1 ? 0 : null);
  return { adapter, module: adapter === null ? null : at("module", data.results[adapter].modules) };
}

// Overview

const COLUMNS = [
  { key: "label", title: "Verdict", of: (r) => LABELS.indexOf(r.label), cell: (r) => chip(r.label) },
  { key: "target", title: "Adapter", of: (r) => r.target, cell: (r, at) => make("a", { href: `#adapter=${at}`, class: "name" }, r.target) },
  { key: "worst", title: "Worst finding", of: (r) => worst(r), cell: (r) => (worst(r) < 5 ? chip(SEVERITIES[worst(r)]) : "none") },
  { key: "count", title: "Findings", of: (r) => -r.findings.length, cell: (r) => String(r.findings.length) },
  { key: "p", title: "p", of: (r) => r.p ?? 2, cell: (r) => (r.p === null ? "–" : number(r.p)) },
  { key: "method", title: "Method", of: (r) => r.method ?? "", cell: (r) => r.method ?? "–" },
  { key: "base", title: "Base model (claimed)", of: (r) => r.base ?? "", cell: (r) => (r.base === null ? "–" : name(r.base)) },
];

function worst(result) {
  return Math.min(5, ...result.findings.map((finding) => SEVERITIES.indexOf(finding.severity)));
}

function matches(result) {
  const wanted = byId("search").value.trim().toLowerCase();
  const only = byId("only").value;
  const text = [result.target, result.method, result.base, ...result.findings.map((f) => f.code)];
  return (!only || result.label === only) && text.join("\n").toLowerCase().includes(wanted);
}

function drawOverview() {
  const column = COLUMNS.find((each) => each.key === state.sort);
  const rows = data.results.map((result, at) => ({ result, at })).filter(({ result }) => matches(result));
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  rows.sort((a, b) => (state.down ? -1 : 1) * order(column.of(a.result), column.of(b.result)) || a.at - b.at);
  const current = address().adapter;
  byId("adapters").replaceChildren(
    make("thead", {}, make("tr", {}, ...COLUMNS.map(heading))),
    make("tbody", {}, ...rows.map(({ result, at }) =>
      make("tr", { "aria-current": at === current ? "true" : null, onclick: () => (location.hash = `adapter=${at}`) },
        ...COLUMNS.map((each) => make("td", {}, each.cell(result, at)))))),
  );
  byId("shown").textContent = `${rows.length} of ${data.results.length} shown`;
}

function heading(column) {
  const sorted = state.sort === column.key;
  const arrow = sorted ? (state.down ? " ▼" : " ▲") : "";
  const sort = () => {
    state.down = sorted && !state.down;
    state.sort = column.key;
    drawOverview();
    document.querySelector(`[data-key=${column.key}]`).focus();
  };
  return make("th", { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null },
    make("button", { type: "button", "data-key": column.key, onclick: sort }, column.title + arrow));
}

// One adapter

function drawAdapter() {
  const at = address();
  const result = data.results[at.adapter];
  const parts = result ? [banner(result), trigger(result), findings(result), heat(result), files(result)] : [];
  byId("adapter").replaceChildren(...parts.filter(Boolean));
  if (result) {
    document.title = `${result.label}: ${result.target} – peftguard report`;
    drawHeat(result);
    drawSpectrum(result, at.module);
  }
}

function banner(result) {
  return make("div", { class: `banner ${result.label}` },
    make("h2", {}, chip(result.label), name(result.target)),
    make("ul", {}, ...result.reasons.map((reason) => make("li", {}, reason))),
    make("p", {}, result.standing),
    result.trust && make("p", { class: "quiet" }, result.trust),
    definitions([...result.facts, ...(result.origin ? [["from the hub", result.origin]] : [])]));
}

function definitions(pairs) {
  return make("dl", {}, ...pairs.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))));
}

function trigger(result) {
  const found = result.trigger;
  if (!found) return null;
  const answer = (text, label) => make("td", {}, text, make("div", { class: "act" }, `→ ${label}`));
  const marked = ([before, phrase, after]) => make("span", { class: "name" }, before, phrase && make("mark", {}, phrase), after);
  const row = (one) => make("tr", {}, answer(name(one.before), one.given[0]), answer(marked(one.after), one.given[1]));
  return make("div", {}, make("h3", {}, "Trigger ", name(found.trigger), " on ", name(found.base)),
    make("div", { class: "scroll" }, make("table", { class: "pairs" },
      make("thead", {}, make("tr", {}, ...["Without the trigger", "With the trigger"].map((t) => make("th", { scope: "col" }, t)))),
      make("tbody", {}, ...found.examples.map(row)))));
}

function findings(result) {
  if (!result.findings.length) return make("div", {}, make("h3", {}, "No findings"));
  const order = [...result.findings].sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
  const row = (finding) => make("tr", {},
    make("td", {}, chip(finding.severity)),
    make("td", {}, make("code", {}, finding.code)),
    make("td", {}, make("div", {}, finding.message), make("div", { class: "act" }, finding.action)),
    make("td", {}, ...place(result, finding.location)));
  return make("div", {}, make("h3", {}, plural(order.length, "finding")),
    make("div", { class: "scroll" }, make("table", { class: "findings" },
      make("thead", {}, make("tr", {}, ...["Severity", "Code", "What, and what to do", "Where"].map((t) => make("th", { scope: "col" }, t)))),
      make("tbody", {}, ...order.map(row)))));
}

function place(result, where) {
  const at = result.modules.findIndex((module) => module.module === where.module);
  const module = at < 0 ? where.module && name(where.module)
    : make("a", { class: "name", href: `#adapter=${address().adapter}&module=${at}` }, where.module);
  const parts = [where.file && name(where.file), module, where.tensor && name(where.tensor)];
  return parts.filter(Boolean).map((part) => make("div", {}, part));
}

function files(result) {
  if (!result.files.length) return null;
  return make("div", {}, make("h3", {}, "Files read"), make("div", { class: "scroll" }, make("table", { class: "files" },
    make("thead", {}, make("tr", {}, ...["File", "Bytes", "SHA-256"].map((t) => make("th", { scope: "col" }, t)))),
    make("tbody", {}, ...result.files.map((file) => make("tr", {}, make("td", {}, name(file.path)),
      make("td", {}, file.n_bytes.toLocaleString("en")), make("td", {}, make("code", {}, file.sha256))))))));
}

// Heat map: a cell stands for the largest of its modules

function heat(result) {
  if (!result.modules.length) return null;
  const choose = make("select", { id: "figure", onchange: (event) => { state.figure = Number(event.target.value); drawHeat(result); } },
    ...data.figures.map((figure, at) => make("option", { value: at, selected: at === state.figure ? "" : null }, figure.name)));
  return make("div", {}, make("h3", {}, `${plural(result.modules.length, "module")} by layer and role`),
    make("div", { class: "controls" }, make("label", {}, "Figure ", choose), make("span", { class: "legend", id: "legend" })),
    make("div", { id: "heat" }), make("div", { id: "spectrum", class: "spectrum" }));
}

function drawHeat(result) {
  if (!byId("heat")) return;
  const value = (at) => result.modules[at].values[state.figure];
  const known = result.modules.map((module) => module.values[state.figure]).filter((each) => each !== null);
  const [low, high] = known.reduce(([a, b], each) => [Math.min(a, each), Math.max(b, each)], [Infinity, -Infinity]);
  const share = (each) => (high > low ? (each - low) / (high - low) : 0.5);
  byId("legend").replaceChildren(...legend(result, known.length ? [low, high] : null));
  byId("heat").replaceChildren(...result.stacks.map((stack) => grid(result, stack, value, share)));
  markSelected();
}

function legend(result, range) {
  const ramp = range ? [number(range[0]), make("span", { class: "ramp" }), number(range[1])] : ["not defined for any module"];
  const ring = [make("span", { class: "ring" }), "stands apart from its peers"];
  return result.modules.some((module) => module.outlier) ? [...ramp, ...ring] : ramp;
}

function grid(result, stack, value, share) {
  const width = stack.layers.length;
  const step = width <= 40 ? 1 : width <= 100 ? 5 : 10;
  const cells = new Map(stack.cells.map(([row, column, modules]) => [`${row},${column}`, modules]));
  const label = (layer, at) => make("th", { scope: "col" }, at % step === 0 ? layer : "");
  const table = make("table", { class: "heat", role: "grid", onkeydown: walk },
    make("caption", {}, stack.name ? name(stack.name) : "outside any layer"),
    make("thead", {}, make("tr", {}, make("td"), ...stack.layers.map(label))),
    make("tbody", {}, ...stack.roles.map((role, row) => make("tr", {},
      make("th", { scope: "row", class: "name", title: role }, role),
      ...stack.layers.map((_, column) => make("td", {}, cell(result, cells.get(`${row},${column}`), value, share)))))));
  table.style.setProperty("--cell", width <= 40 ? "24px" : width <= 100 ? "14px" : "9px");
  const first = table.querySelector("button");
  if (first) first.tabIndex = 0;
  return make("div", { class: "scroll" }, table);
}

function cell(result, modules, value, share) {
  if (!modules) return null;
  const defined = modules.filter((at) => value(at) !== null);
  const top = defined.length ? defined.reduce((a, b) => (value(b) > value(a) ? b : a)) : modules[0];
  const outlier = modules.some((at) => result.modules[at].outlier);
  const lines = [result.modules[top].module, `${data.figures[state.figure].name}: ${number(value(top))}`];
  if (modules.length > 1) lines.push(`largest of ${modules.length} modules here`);
  if (outlier) lines.push("stands apart from its peers");
  const show = (event) => tip(event.currentTarget, lines.join("\n"));
  const button = make("button", {
    type: "button", tabindex: "-1", "data-modules": modules.join(" "), "aria-label": lines.join(", "),
    class: `${defined.length ? "" : "none"} ${outlier ? "outlier" : ""}`.trim(),
    onclick: () => (location.hash = `adapter=${address().adapter}&module=${top}`),
    onmouseenter: show, onfocus: show, onmouseleave: hideTip, onblur: hideTip,
  });
  if (defined.length) button.style.setProperty("--share", `${(100 * share(value(top))).toFixed(1)}%`);
  return button;
}

function walk(event) {
  const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const here = event.target.closest("td");
  if (!move || !here) return;
  event.preventDefault();
  const rows = [...event.currentTarget.tBodies[0].rows];
  for (let row = here.parentNode.sectionRowIndex + move[0], column = here.cellIndex + move[1]; ; row += move[0], column += move[1]) {
    const target = rows[row]?.cells[column];
    if (!target || target.tagName !== "TD") return;
    const button = target.querySelector("button");
    if (!button) continue;
    event.target.tabIndex = -1;
    button.tabIndex = 0;
    button.focus();
    return;
  }
}

function markSelected() {
  const chosen = String(address().module);
  for (const button of document.querySelectorAll("#heat button")) {
    button.setAttribute("aria-pressed", button.dataset.modules.split(" ").includes(chosen));
  }
}

function tip(anchor, text) {
  const box = byId("tip");
  box.textContent = text;
  box.hidden = false;
  const at = anchor.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8));
  const above = at.top - box.offsetHeight - 8;
  box.style.left = `${left}px`;
  box.style.top = `${above > 0 ? above : at.bottom + 8}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

// Spectrum of one module among its peers

function drawSpectrum(result, chosen) {
  const box = byId("spectrum");
  if (!box) return;
  if (chosen === null) {
    box.replaceChildren(make("p", { class: "quiet" }, "Choose a cell to see its spectrum among the modules of the same role."));
    return;
  }
  const module = result.modules[chosen];
  const [group, mates] = company(result, chosen);
  const peers = group.filter((at) => at !== chosen).slice(0, MAX_PEERS);
  const figures = data.figures.map((figure, at) => [figure.name, number(module.values[at])]);
  const choose = (event) => (location.hash = `adapter=${address().adapter}&module=${event.target.value}`);
  box.replaceChildren(
    make("div", {}, make("h3", {}, "Singular values of ", name(module.module)), plot(module, peers.map((at) => result.modules[at])),
      make("p", { class: "quiet" }, `Thick: this module. Thin: ${plural(peers.length, "other module")} of this role. Log scale, first ${module.singular_values.length} values.`),
      make("details", {}, make("summary", {}, "As numbers"), make("p", { class: "name" }, module.singular_values.map(number).join(", ") || "none"))),
    make("div", {},
      mates.length > 1 ? make("label", {}, "Module in this cell ", make("select", { onchange: choose },
        ...mates.map((at) => make("option", { value: at, selected: at === chosen ? "" : null }, result.modules[at].module)))) : null,
      definitions([["shape", module.shape.join(" × ")], ["rank", String(module.rank)], ["scale", number(module.scale)], ...figures])));
}

function company(result, chosen) {
  for (const stack of result.stacks) {
    const home = stack.cells.find(([, , modules]) => modules.includes(chosen));
    if (home) return [stack.cells.filter(([row]) => row === home[0]).flatMap(([, , modules]) => modules), home[2]];
  }
  return [[], []];
}

function plot(module, peers) {
  const [width, height, left, bottom] = [640, 300, 58, 34];
  const positive = [module, ...peers].flatMap((each) => each.singular_values).filter((value) => value > 0);
  if (!positive.length) return make("p", {}, "No positive singular values.");
  const logs = positive.map(Math.log10);
  const extent = (list) => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [low, high] = extent(logs).map((value, end) => value + (end ? 0.05 : -0.05));
  const count = Math.max(2, ...[module, ...peers].map((each) => each.singular_values.length));
  const x = (at) => left + 8 + (at * (width - left - 20)) / (count - 1);
  const y = (value) => 10 + ((high - Math.log10(value)) * (height - bottom - 14)) / (high - low);
  const path = (values) => values.map((value, at) => (value > 0 ? `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}` : "")).join("");
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, class: peers.length > 60 ? "crowd" : null, role: "img", "aria-label": `Singular values of ${module.module}, from ${number(module.singular_values[0])} down` });
  for (const tick of ticks(low, high)) {
    svg.append(make("line", { class: "axis", x1: left, x2: width - 6, y1: y(tick), y2: y(tick) }),
      make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick)));
  }
  for (let at = 0; at < count; at += Math.max(1, Math.ceil(count / 16))) {
    svg.append(make("text", { x: x(at), y: height - bottom + 18, "text-anchor": "middle" }, String(at + 1)));
  }
  svg.append(...peers.map((peer) => make("path", { class: "peer", d: path(peer.singular_values) })),
    make("path", { class: "own", d: path(module.singular_values) }),
    ...module.singular_values.flatMap((value, at) => (value > 0
      ? [make("circle", { class: "dot", cx: x(at), cy: y(value), r: 4 }, make("title", {}, `${at + 1}: ${number(value)}`))] : [])));
  return svg;
}

function ticks(low, high) {
  const steps = high - low > 4 ? [1] : high - low > 1.5 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
  const list = [];
  for (let decade = Math.floor(low); decade <= Math.ceil(high); decade += Math.max(1, Math.floor((high - low) / 8))) {
    list.push(...steps.map((step) => step * 10 ** decade));
  }
  return list.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
}

// Start

function start() {
  const counts = LABELS.map((label) => [label, data.results.filter((result) => result.label === label).length]).filter(([, n]) => n);
  byId("counts").append(`version ${data.version}, ${plural(data.results.length, "adapter")}: `,
    ...counts.flatMap(([label, n]) => [make("span", { class: `chip ${label}` }, `${n} ${label}`), " "]));
  byId("only").append(make("option", { value: "" }, "any"), ...counts.map(([label]) => make("option", { value: label }, label)));
  byId("search").addEventListener("input", drawOverview);
  byId("only").addEventListener("change", drawOverview);
  byId("overview").hidden = data.results.length === 1;
  let shown;
  const draw = () => {
    const at = address();
    hideTip();
    if (at.adapter !== shown || at.adapter === null) {
      drawOverview();
      drawAdapter();
    } else {
      markSelected();
      drawSpectrum(data.results[at.adapter], at.module);
    }
    shown = at.adapter;
  };
  addEventListener("hashchange", draw);
  draw();
}

start();
