// Compare: tables and curves of chosen runs, and the pictures on which two classifiers disagree.

import { ask, make, run, say } from "./common.js";

const at = (id) => document.getElementById(id);
const query = (values) => new URLSearchParams(Object.entries(values).flatMap(([key, value]) => [value].flat().map((one) => [key, one])));
const chosen = () => [run, ...[...at("chosen").querySelectorAll("input:checked")].map((box) => box.value)];

let reading = null; // what is under way for the table
let classifiers = [];
let chose = false; // whether somebody has chosen a pair, which then stays

// Tables and curves: HTML of the studio's own templates, in which every name is escaped

async function results() {
  reading?.abort();
  const mine = reading = new AbortController(), place = at("results");
  place.setAttribute("aria-busy", "true");
  if (!place.children.length) place.replaceChildren(make("p", { className: "soft" }, "Reading what was measured…"));
  try {
    const { html } = await ask(`/api/compare/results?${query({ name: chosen() })}`, { signal: mine.signal, quiet: true });
    place.innerHTML = html;
  } catch (error) {
    if (error.name === "AbortError") return;
    place.replaceChildren(make("p", { className: "note" }, error.message));
  }
  place.setAttribute("aria-busy", "false");
}

async function choose(event) {
  const names = chosen(), most = +at("chosen").dataset.most;
  if (names.length > most) {
    event.target.checked = false;
    say(`At most ${most} runs stand side by side.`, { error: true });
    return;
  }
  history.replaceState(null, "", `?${query({ run, with: names })}`);
  await Promise.all([results(), sides()]);
}

// Disagreements

const called = (one) => `${one.run}: ${one.kind}, seed ${one.seed}`;
const picked = (id) => classifiers[+at(id).value];

async function sides() {
  const before = chose ? [picked("first"), picked("second")].map((one) => one && called(one)) : [];
  try {
    ({ classifiers } = await ask(`/api/compare/classifiers?${query({ name: chosen() })}`, { quiet: true }));
  } catch (error) {
    at("disagree").hidden = true;
    return;
  }
  classifiers = classifiers.filter((one) => one.detectors.length);
  at("disagree").hidden = classifiers.length < 2;
  if (classifiers.length < 2) return;
  const first = classifiers.findIndex((one) => one.kind === "regularized" && one.run === run);
  const others = [(one) => one.kind === "regularized" && one.run !== run, (one) => one.kind === "baseline"];
  const second = others.map((is) => classifiers.findIndex(is)).find((i) => i >= 0);
  for (const [i, [id, usual]] of [["first", first], ["second", second]].entries()) {
    at(id).replaceChildren(...classifiers.map((one, k) => make("option", { value: k }, called(one))));
    const again = classifiers.findIndex((one) => called(one) === before[i]);
    at(id).value = again >= 0 ? again : Math.max(usual ?? 0, 0);
  }
  detectors();
}

function detectors() {
  const before = at("detector").value;
  const common = picked("first").detectors.filter((name) => picked("second").detectors.includes(name));
  at("detector").replaceChildren(...common.map((name) => make("option", {}, name)));
  if (common.includes(before)) at("detector").value = before;
  disagree();
}

const pair = () => {
  const [a, b] = [picked("first"), picked("second")];
  return {
    first: a.run, first_kind: a.kind, first_seed: a.seed, second: b.run, second_kind: b.kind, second_seed: b.seed,
    detector: at("detector").value, accepted: at("share").value,
  };
};

let comparing = 0;

async function disagree() {
  const turn = ++comparing;
  at("pictures").replaceChildren();
  if (!at("detector").value) { at("sets").replaceChildren(make("p", { className: "note" }, "The two have no detector in common.")); return; }
  at("sets").setAttribute("aria-busy", "true");
  let shown;
  try {
    shown = table((await ask(`/api/compare/disagreements?${query(pair())}`, { quiet: true })).sets);
  } catch (error) {
    shown = make("p", { className: "note" }, error.message);
  }
  if (turn !== comparing) return;
  at("sets").replaceChildren(shown);
  at("sets").setAttribute("aria-busy", "false");
}

function table(sets) {
  const head = ["Set", "pictures", "unknown to the first alone", "to the second alone", "to both", "to neither"];
  const look = (set, by, n) => {
    if (!n) return make("td", { className: "n" }, "0");
    const which = by === "first" ? "first" : "second";
    const button = make("button", { type: "button", ariaPressed: "false", ariaLabel: `Show ${n} of ${set.name} that only the ${which} calls unknown` }, n.toLocaleString("en"));
    button.addEventListener("click", () => {
      for (const other of at("sets").querySelectorAll("button")) other.ariaPressed = "false";
      button.ariaPressed = "true";
      pictures(set.name, by, 0);
    });
    return make("td", { className: "n" }, button);
  };
  return make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((text, i) => make("th", { scope: "col", className: i ? "n" : "" }, text)))),
    make("tbody", {}, ...sets.map((set) => make("tr", {},
      make("th", { scope: "row" }, set.name === "id" ? "known test pictures" : `${set.name} (${set.group})`),
      make("td", { className: "n" }, set.n.toLocaleString("en")),
      look(set, "first", set.only_first), look(set, "second", set.only_second),
      make("td", { className: "n" }, set.both.toLocaleString("en")), make("td", { className: "n" }, set.neither.toLocaleString("en"))))));
}

async function pictures(set, by, start) {
  const turn = comparing, place = at("pictures"), asked = pair();
  place.replaceChildren(make("p", { className: "soft", role: "status" }, "Reading the run’s pictures, which takes a while the first time…"));
  let found;
  try {
    found = await ask(`/api/compare/disagreements/pictures?${query({ ...asked, set, flagged_by: by, start })}`, { quiet: true });
  } catch (error) {
    if (turn === comparing) place.replaceChildren(make("p", { className: "note" }, error.message));
    return;
  }
  if (turn !== comparing) return;
  const last = start + found.pictures.length;
  const about = `${set === "id" ? "Known test pictures" : set}: unknown to the ${by} alone, ${start + 1} to ${last} of ${found.total.toLocaleString("en")}. `
    + "The p-value is the share of known test pictures that look at least as strange.";
  const step = (text, to, possible) => {
    const button = make("button", { type: "button", disabled: !possible }, text);
    button.addEventListener("click", () => pictures(set, by, to));
    return button;
  };
  const source = (row) => `/api/compare/${encodeURIComponent(asked.first)}/picture?${query({ set, row })}`;
  place.replaceChildren(
    make("p", { className: "small soft", role: "status" }, about),
    make("ul", { className: "differ" }, ...found.pictures.map((one) => make("li", {},
      make("img", { src: source(one.row), alt: `${one.truth}, picture ${one.row}`, loading: "lazy" }),
      make("strong", {}, one.truth), `first p = ${one.p_first.toPrecision(2)}`, make("br"), `second p = ${one.p_second.toPrecision(2)}`))),
    make("p", { className: "row" }, step("Earlier", Math.max(0, start - found.shown), start > 0), step("Further", last, last < found.total)));
}

if (at("chosen")) {
  at("chosen").addEventListener("change", choose);
  for (const id of ["first", "second"]) at(id).addEventListener("change", () => { chose = true; detectors(); });
  for (const id of ["detector", "share"]) at(id).addEventListener("change", disagree);
  at("pair").addEventListener("submit", (event) => event.preventDefault());
  results();
  sides();
}
