// The gallery of imagined pictures: only those that can be seen are in the page, however many there are.

import { api, ask, bar, compared, follow, keys, make, run, say } from "./common.js";

const CELL = 116, CAPTION = 20, SPARE = 2; // pixels; rows of cells beyond the edges
const POLL = 2000, TYPING = 250;

const $ = (id) => document.getElementById(id);
const grid = $("grid"), sheet = $("sheet");
const channel = new BroadcastChannel("oodream studio outliers");

let table;                       // all rows, column by column
let states = new Map();          // row -> true, false: what people decided
let version = 0;                 // decisions that are known here
let unsure = false;              // whether a decision may not have arrived
let scores = null;
let list = [];                   // rows that are shown, in order
let cursor = 0;                  // a place in the list
let from = 0;                    // where picking with Shift began
let picked = new Set();          // rows
let columns = 1, cell = CELL;
const nodes = new Map();         // place -> element in the page
let spare = [];                  // elements to use again

// What a row is

const kept = (m) => states.get(m) ?? table.reason[m] < 0;
const why = (m) => states.get(m) === false ? "a person rejected it" : kept(m) ? "" : table.reasons[table.reason[m]];

function words(m) {
  if (states.get(m) === false) return "dropped: a person rejected it";
  if (states.get(m) === true) return `kept by a person; a filter would drop it: ${table.reasons[table.reason[m]]}`;
  return kept(m) ? "kept" : `dropped: ${why(m)}`;
}

// Which rows, in which order

const fields = ["class", "show", "word", "from", "to", "order"];

function select() {
  const name = $("class").value, show = $("show").value, word = $("word").value.trim().toLowerCase();
  const least = parseFloat($("from").value), most = parseFloat($("to").value);
  const y = name === "" ? -1 : Number(name), reason = show.startsWith("reason ") ? Number(show.slice(7)) : -1;
  list = [];
  for (let m = 0; m < table.count; m++) {
    if (y >= 0 && table.class[m] !== y) continue;
    if (word && !(table.words[table.word[m]] ?? "").toLowerCase().includes(word)) continue;
    if (table.distance[m] < least || table.distance[m] > most) continue;
    if (show === "kept" && !kept(m)) continue;
    if (show === "dropped" && kept(m)) continue;
    if (show === "rejected" && states.get(m) !== false) continue;
    if (show === "rescued" && states.get(m) !== true) continue;
    if (reason >= 0 && table.reason[m] !== reason) continue;
    list.push(m);
  }
  const by = {
    near: (m) => table.distance[m],
    far: (m) => -table.distance[m],
    class: (m) => table.class[m],
    word: (m) => table.word[m],
    state: (m) => (states.get(m) === false ? -2 : kept(m) ? -1 : table.reason[m]),
    baseline: (m) => scores?.baseline?.score[m],
    regularized: (m) => scores?.regularized?.score[m],
  }[$("order").value];
  if (by) list.sort((a, b) => by(a) - by(b) || a - b);
  cursor = from = 0;
  picked = new Set(list.filter((m) => picked.has(m)));
  grid.scrollTop = 0;
  for (const place of [...nodes.keys()]) drop(place);
  layout();
  look();
  tell();
  remember();
}

function remember() {
  const place = new URL(location.href);
  place.search = new URLSearchParams({ run });
  for (const id of fields) if ($(id).value && $(id).value !== "row") place.searchParams.set(id, $(id).value);
  if (list.length) place.searchParams.set("row", list[cursor]);
  history.replaceState(null, "", place);
}

// The page's elements

function layout() {
  const width = grid.clientWidth;
  columns = Math.max(2, Math.floor(width / CELL));
  cell = width / columns;
  sheet.style.height = `${Math.ceil(list.length / columns) * (cell + CAPTION)}px`;
  for (const place of [...nodes.keys()]) drop(place);
  reveal();
  draw();
}

function reveal() {
  const top = Math.floor(cursor / columns) * (cell + CAPTION), bottom = top + cell + CAPTION;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (bottom > grid.scrollTop + grid.clientHeight) grid.scrollTop = bottom - grid.clientHeight;
}

function drop(place) {
  const node = nodes.get(place);
  nodes.delete(place);
  node.remove();
  node.querySelector("img").removeAttribute("src"); // what is no longer seen is no longer waited for
  spare.push(node);
}

function fresh() {
  const img = make("img", { alt: "", decoding: "async", className: table.size <= 64 ? "pixels" : "" });
  const node = make("div", { className: "cell", role: "option" },
    make("div", { className: "frame" }, img, make("span", { className: "mark" })),
    make("div", { className: "about" }, make("span"), make("span")));
  return node;
}

function draw() {
  const height = cell + CAPTION;
  const first = Math.max(0, Math.floor(grid.scrollTop / height) - SPARE) * columns;
  const last = Math.min(list.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / height) + SPARE) * columns);
  for (const place of [...nodes.keys()]) if (place < first || place >= last) drop(place);
  for (let place = first; place < last; place++) {
    let node = nodes.get(place);
    if (!node) {
      node = spare.pop() ?? fresh();
      nodes.set(place, node);
      const m = list[place];
      node.id = `cell-${place}`;
      node.dataset.place = place;
      node.setAttribute("aria-setsize", list.length);
      node.setAttribute("aria-posinset", place + 1);
      node.style.width = `${cell}px`;
      node.style.transform = `translate(${(place % columns) * cell}px, ${Math.floor(place / columns) * height}px)`;
      if (table.pictures) node.querySelector("img").src = `${api("outliers", "pictures", m)}?of=${table.of}`;
      const [left, right] = node.querySelector(".about").children;
      left.textContent = table.words[table.word[m]] ?? "";
      right.textContent = table.distance[m].toFixed(2);
      sheet.append(node);
    }
    paint(place, node);
  }
  spare.length = Math.min(spare.length, 4 * columns);
  if (list.length) grid.setAttribute("aria-activedescendant", `cell-${cursor}`);
  else grid.removeAttribute("aria-activedescendant");
}

function paint(place, node = nodes.get(place)) {
  if (!node) return;
  const m = list[place], state = states.get(m);
  node.classList.toggle("dropped", !kept(m));
  node.classList.toggle("cursor", place === cursor);
  node.setAttribute("aria-selected", picked.has(m));
  const mark = node.querySelector(".mark");
  mark.textContent = state === true ? "✓" : kept(m) ? "" : state === false ? "✗" : "–";
  mark.classList.toggle("kept", state === true);
  node.setAttribute("aria-label", `Row ${m}, around ${table.classes[table.class[m]]}, ${words(m)}`);
}

function tell() {
  const n = list.filter(kept).length;
  let rejected = 0;
  for (const keep of states.values()) if (!keep) rejected += 1;
  const number = (x) => x.toLocaleString("en");
  $("count").textContent = `${number(list.length)} of ${number(table.count)} ${table.kind}s shown, ${number(n)} of these kept. ` +
    `A person rejected ${number(rejected)} in all.`;
}

// The one under the cursor

let asked = 0, waiting = 0;

function look() {
  clearTimeout(waiting);
  const m = list[cursor];
  $("details").hidden = m === undefined;
  if (m === undefined) return;
  $("state").textContent = words(m);
  $("state").className = kept(m) ? "good" : "warn";
  $("chosen").textContent = picked.size > 1 ? `${picked.size.toLocaleString("en")} are picked: keep and reject are about all of them.` : "";
  if (table.pictures) $("large").src = `${api("outliers", "pictures", m)}?of=${table.of}`;
  $("large").alt = `Imagined picture of row ${m}, around ${table.classes[table.class[m]]}`;
  $("large").classList.toggle("pixels", table.size <= 64);
  $("anchor").classList.toggle("pixels", table.size <= 64);
  $("more-like").href = `/imagine?${new URLSearchParams({ run, row: m })}`;
  show();
  const ticket = ++asked;
  waiting = setTimeout(() => inquire(m, ticket).catch(() => {}), 80); // not for each that the cursor flies over
}

async function inquire(m, ticket) {
  $("anchor").src = `${api("outliers", "anchors", m)}?of=${table.of}`;
  const d = await ask(api("outliers", "rows", m));
  if (ticket !== asked) return;
  $("anchor").alt = `The known image that row ${m} lies around`;
  const facts = {
    row: d.row, class: d.class, prompt: d.prompt, "nearest words": d.words.join(", "),
    "kNN distance": d.knn_distance, "cosine to class": d.cosine_to_class, seed: d.seed,
    anchor: d.anchor, pipeline: d.pipeline,
  };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, `${v}`)]));
  remember();
}

function show() {
  const known = Object.entries(scores ?? {});
  $("scores").hidden = !known.length;
  if (!known.length) return;
  const m = list[cursor];
  $("scores").tBodies[0].replaceChildren(...known.map(([kind, s]) => {
    const flagged = s.score[m] > s.threshold, [score, threshold] = compared(s.score[m], s.threshold);
    return make("tr", {}, make("th", { scope: "row", className: `name ${kind === "baseline" ? "base" : "final"}` }, kind),
      make("td", { className: "n" }, score), make("td", { className: "n" }, threshold),
      make("td", {}, flagged ? "unknown" : table.classes[s.likeliest[m]]));
  }));
}

// Moving and picking

function move(place, picking) {
  if (!list.length) return;
  const before = cursor;
  cursor = Math.min(list.length - 1, Math.max(0, place));
  if (picking) {
    const [a, b] = [Math.min(from, cursor), Math.max(from, cursor)];
    picked = new Set(list.slice(a, b + 1));
  } else from = cursor;
  reveal();
  draw();
  paint(before);
  look();
}

function toggle(m) {
  if (!picked.delete(m)) picked.add(m);
  from = cursor;
  draw();
  look();
}

const onGrid = (work) => (event) => document.activeElement === grid ? work(event) : false;

grid.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor(grid.clientHeight / (cell + CAPTION))) * columns;
  const steps = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page,
    Home: -Infinity, End: Infinity,
  };
  if (event.key in steps && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    move(cursor + steps[event.key], event.shiftKey);
  }
});

keys({
  ArrowLeft: () => document.activeElement === grid ? false : move(cursor - 1),
  ArrowRight: () => document.activeElement === grid ? false : move(cursor + 1),
  " ": onGrid(() => list.length && toggle(list[cursor])),
  "Ctrl+a": onGrid(() => { picked = new Set(list); draw(); look(); }),
  Escape: () => { picked.clear(); draw(); look(); },
  r: () => decide("reject"), R: () => decide("reject"), Delete: () => decide("reject"),
  k: () => decide("keep"), K: () => decide("keep"),
  u: () => undo(), U: () => undo(), "Ctrl+z": () => undo(),
});

sheet.addEventListener("click", (event) => {
  const place = Number(event.target.closest(".cell")?.dataset.place ?? NaN);
  if (Number.isNaN(place)) return;
  if (event.shiftKey) move(place, true);
  else {
    const adding = event.ctrlKey || event.metaKey;
    if (adding && !picked.size && place !== cursor) picked.add(list[cursor]);
    move(place);
    if (adding) toggle(list[place]);
    else if (picked.size) { picked.clear(); draw(); look(); }
  }
});
sheet.addEventListener("dblclick", () => list.length && decide(kept(list[cursor]) ? "reject" : "keep"));

// Decisions

let sending = Promise.resolve(); // one after another, in the order of the keys

function decide(action) {
  const rows = picked.size ? [...picked] : list.slice(cursor, cursor + 1);
  if (!rows.length) return;
  for (const m of rows) { // shown at once; the studio's answer says how it is
    if (action === "reject") states.set(m, false);
    else if (table.reason[m] >= 0) states.set(m, true);
    else states.delete(m);
  }
  refresh();
  send(api("outliers", "curation"), { rows, action, of: table.of });
  if (rows.length > 1) say(`${rows.length.toLocaleString("en")} ${action === "keep" ? "kept" : "rejected"}.`, { action: ["Undo", undo] });
}

function undo() {
  send(api("outliers", "undo"), {}).then((answer) => {
    if (answer?.undone) say(`Undone: ${answer.undone.length === 1 ? `row ${answer.undone[0]}` : `${answer.undone.length.toLocaleString("en")} rows`}.`);
  });
}

function send(path, body) {
  sending = sending.then(async () => {
    try {
      const answer = await ask(path, { body: { ...body, since: version } });
      learn(answer);
      channel.postMessage(run);
      return answer;
    } catch {
      unsure = true; // what is shown may not be what was saved
      await catchUp();
      return null;
    }
  });
  return sending;
}

function learn(answer) {
  if (answer.of !== table.of) { location.reload(); return; }
  version = answer.version;
  for (const [m, keep] of Object.entries(answer.states)) {
    if (keep === null) states.delete(Number(m)); else states.set(Number(m), keep);
  }
  $("undo").disabled = !answer.undo;
  $("untrained").hidden = answer.trained;
  $("why-untrained").textContent = answer.classifier
    ? "The classifier was trained with other choices. The run’s command again trains it with these:"
    : "The classifier is not trained yet. The run’s command trains it with these choices:";
  refresh();
}

function refresh() { draw(); look(); tell(); }

async function catchUp() {
  const anew = unsure;
  try {
    const answer = await ask(`${api("outliers", "curation")}?since=${anew ? 0 : version}`, { quiet: true });
    unsure = false;
    if (anew) states.clear();
    if (anew || answer.version !== version || answer.of !== table.of || $("untrained").hidden !== answer.trained) learn(answer);
  } catch { /* the studio is away: the next look finds it again */ }
}

channel.addEventListener("message", (event) => { if (event.data === run) sending = sending.then(() => catchUp()); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) sending = sending.then(() => catchUp()); });
setInterval(() => { if (!document.hidden) sending = sending.then(() => catchUp()); }, POLL);

// Scores

async function score() {
  const answer = await ask(api("outliers", "scores"), { method: "POST", quiet: true });
  if (answer.task) {
    const line = bar("Scores");
    $("scoring").append(line.node);
    const task = await follow(answer.task, line.show);
    line.node.remove();
    if (task.state === "done") return score();
    return;
  }
  scores = answer.scores;
  for (const kind of Object.keys(scores)) $("order").querySelector(`[value=${kind}]`).disabled = false;
  if ($("order").value in scores) { // it could not be had before
    const m = list[cursor];
    select();
    move(list.indexOf(m));
  }
  show();
}

// The beginning

async function begin() {
  try {
    table = await ask(api("outliers", "rows"), { quiet: true });
    const now = await ask(api("outliers", "curation"));
    $("work").hidden = false;
    table.classes.forEach((name, y) => $("class").append(make("option", { value: y }, name)));
    table.reasons.forEach((reason, i) => $("show").append(make("option", { value: `reason ${i}` }, `dropped: ${reason}`)));
    $("words").append(...table.words.map((word) => make("option", { value: word })));
    $("command").textContent = table.command;
    const place = new URLSearchParams(location.search);
    for (const id of fields) if (place.has(id)) $(id).value = place.get(id);
    if ($("order").value === "") $("order").value = "row";
    learn(now);
    const row = Number(place.get("row") ?? NaN);
    select();
    if (list.includes(row)) move(list.indexOf(row)); else look();
    grid.focus({ preventScroll: true });
    document.body.dataset.ready = "true";
  } catch (error) {
    $("count").textContent = error.message;
    return;
  }
  if (table.pictures) score().catch(() => {});
}

$("filters").addEventListener("submit", (event) => event.preventDefault());
let typing = 0;
$("filters").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(select, TYPING); });
$("keep").addEventListener("click", () => decide("keep"));
$("reject").addEventListener("click", () => decide("reject"));
$("undo").addEventListener("click", undo);
grid.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
new ResizeObserver(() => table && layout()).observe(grid);
$("anchor").addEventListener("error", () => { $("anchor").alt = "The known image is not where it was."; });
if (run) begin();
