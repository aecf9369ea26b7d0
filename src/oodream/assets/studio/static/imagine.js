// Imagine: recipes from the form, pictures as they come, what is liked and added.

import { api, ask, compared, follow, imagined, make, run, say } from "./common.js";

const GROUPS = 8; // on the page at once; older ones leave it
const EVERY = 250; // milliseconds between two looks at the tasks
const STRIP = 7; // pictures on the way between two ends
const NEAR = 0.15; // of a right angle, for near ones
const STORE = `imagine ${run}`;
const MOST_MOVES = 16;

const $ = (id) => document.getElementById(id);
const form = $("recipe"), groups = $("groups");
const shown = new Map(); // task number -> picture on the page
let base = null; // {recipe, text}: what is begun with in place of the class
let watching = false, added = [], closed = false;

const percent = (x) => `${Math.round(100 * x)} %`;
const kind = () => form.elements.kind.value;
const fieldsOf = (recipe) => JSON.stringify(recipe);

// Recipes

function end() {
  if (kind() === "class") return { kind: "class", value: $("other").value };
  if (kind() === "word") return { kind: "word", value: $("word").value.trim() };
  return null;
}

/** The form's recipe for the i-th picture: each has noise of its own, and a direction of its own. */
function recipe(i, share = Number($("distance").value) / 100) {
  const seed = Number($("seed").value) + i, name = $("class").value;
  const start = base?.recipe.start ?? { kind: "class", value: name };
  const moves = moved(base?.recipe.moves, share > 0 || end() ? { toward: end(), seed, share } : null);
  return { name, start, moves, seed, steps: Number($("steps").value), guidance: Number($("guidance").value) };
}

/** The moves and one more; where there are too many, the last one gives its place. */
function moved(moves = [], more) {
  return more ? [...moves.slice(0, MOST_MOVES - 1), more] : moves;
}

function check() {
  if (!form.reportValidity()) return false;
  if (kind() !== "word" || $("word").value.trim()) return true;
  say("Which word? Type one that the decoder knows.", { error: true });
  $("word").focus();
  return false;
}

// Drawing

async function draw(title, recipes, { labels = null, way = false } = {}) {
  const list = make("ul", { className: "pictures" });
  const group = make("div", { className: `group${way ? " way" : ""}`, role: "group", ariaLabel: title }, make("h2", {}, title), list);
  const pictures = recipes.map((one, i) => picture(one, labels?.[i]));
  list.append(...pictures.map((p) => p.node));
  groups.prepend(group);
  while (groups.children.length > GROUPS) groups.lastChild.remove();
  $("empty").hidden = true;
  let tasks;
  try {
    tasks = await ask(api("imagine", "draw"), { body: { recipes } });
  } catch {
    group.remove();
    return;
  }
  tasks.forEach((task, i) => {
    Object.assign(pictures[i], { key: task.key, task: task.id });
    shown.set(task.id, pictures[i]);
  });
  remember();
  watch();
}

/** Looks at the tasks of all pictures that are not there yet, with one question at a time. */
async function watch() {
  if (watching) return;
  watching = true;
  $("stop").hidden = false;
  try {
    while (shown.size) {
      for (const [id, p] of shown) if (!p.node.isConnected) shown.delete(id);
      if (!shown.size) break;
      const asked = [...shown.keys()];
      const tasks = await ask(`${api("imagine", "tasks")}?${asked.map((id) => `number=${id}`).join("&")}`, { quiet: true }).catch(() => null);
      if (!tasks) { await new Promise((done) => setTimeout(done, 8 * EVERY)); continue; }
      const known = new Map(tasks.map((task) => [task.id, task]));
      await Promise.all(asked.map((id) => look(id, known.get(id))));
      await new Promise((done) => setTimeout(done, EVERY));
    }
  } finally {
    watching = false;
    $("stop").hidden = true;
  }
}

async function look(id, task) {
  const p = shown.get(id);
  if (task && (task.state === "waiting" || task.state === "running")) { p.progress(task); return; }
  shown.delete(id);
  if (task?.state === "failed") { p.fail("failed"); say(task.error, { error: true }); return; }
  if (task?.state === "stopped") { p.fail("stopped"); return; }
  const facts = await ask(api("imagine", "pictures", p.key), { quiet: true }).catch(() => null);
  if (facts) p.fill(facts); else p.fail("lost");
}

/** A picture's place on the page: first a progress bar, then the picture with what a person may ask. */
function picture(one, label = "") {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: "Drawing" }), text = make("span", {}, "waiting");
  const frame = make("div", { className: "frame" }, bar, text), rest = make("div");
  const node = make("li", { className: "picture", tabIndex: 0 }, frame, rest);
  if (label) node.prepend(make("span", { className: "place" }, label));
  const p = { node, recipe: one, key: null };
  places.set(node, p);
  p.progress = (task) => { bar.value = task.progress; text.textContent = task.message || task.state; };
  p.fail = (why) => { bar.remove(); text.textContent = why; rest.replaceChildren(button("Draw again", () => draw("Again", [one]))); };
  p.fill = (facts) => {
    const about = `${facts.class}: ${facts.way}`;
    frame.replaceChildren(make("img", { src: api("imagine", "pictures", facts.key, "png"), alt: `Drawn ${about}`, className: "pixels" }));
    node.title = `${about}; nearest words: ${facts.words.join(", ")}`;
    const add = button("Add", () => toggle(p));
    add.dataset.add = fieldsOf(facts.recipe);
    Object.assign(p, { facts, recipe: facts.recipe });
    add.title = `to the ${imagined} that training takes`;
    rest.replaceChildren(describe(facts), make("div", { className: "does" }, add, button("Near", () => near(p)), button("Noise", () => noise(p)), button("Go on", () => from(p))));
    mark();
  };
  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !p.facts) return;
    const work = { a: toggle, n: near, o: noise }[event.key];
    if (work) { event.preventDefault(); work(p); }
  });
  return p;
}

function button(text, work) {
  const b = make("button", { type: "button" }, text);
  b.addEventListener("click", work);
  return b;
}

function describe(facts) {
  const list = make("dl");
  const row = (name, value, title = "") => list.append(make("dt", {}, name), make("dd", { title: title || value }, value));
  row("cosine", facts.cosine_to_class.toFixed(2), `to the vector of ${facts.class}`);
  if (facts.knn_distance != null) row("distance", facts.knn_distance.toFixed(2), "to the k-th nearest known image of the class");
  row("near", facts.words[0] ?? "", `nearest words: ${facts.words.join(", ")}`);
  for (const [who, o] of Object.entries(facts.opinions)) {
    const [score, threshold] = compared(o.score, o.threshold);
    row(who === "baseline" ? who : `with ${imagined}`, o.flagged ? "unknown" : `${percent(o.probability)} ${o.likeliest}`, `${who}: ${o.likeliest} ${percent(o.probability)}, score ${score}, threshold ${threshold}`);
  }
  return list;
}

// More like this one

const fresh = () => Math.floor(Math.random() * 2 ** 31);
const four = (make) => Array.from({ length: 4 }, (_, i) => make(i));

function noise(p) {
  draw(`The same vector, other noise: ${p.facts.class}, ${p.facts.way}`, four(() => ({ ...p.recipe, seed: fresh() })));
}

function near(p) {
  const one = () => ({ toward: null, seed: fresh(), share: NEAR });
  draw(`Near: ${p.facts.class}, ${p.facts.way}`, four(() => ({ ...p.recipe, moves: moved(p.recipe.moves, one()) })));
}

function from(p) {
  setBase({ recipe: p.recipe, text: `From this one: ${p.facts.way}` });
  $("class").value = p.recipe.name;
  $("distance").focus();
}

function setBase(value) {
  base = value;
  $("base").hidden = !base;
  $("base").firstElementChild.textContent = base?.text ?? "";
  legend();
}

// Adding

async function toggle(p) {
  if (closed) return;
  const have = added.find((line) => fieldsOf(line.recipe) === fieldsOf(p.facts.recipe));
  if (have) return remove(have);
  const answer = await ask(api("imagine", "add"), { body: { recipes: [p.facts.recipe] } });
  await finished(answer);
  say(`Added to the ${imagined} of ${run}.`, { action: ["Undo", () => undo(p.facts.recipe)] });
}

async function undo(one) {
  const line = added.find((x) => fieldsOf(x.recipe) === fieldsOf(one));
  if (line) await remove(line);
}

async function remove(line) {
  showAdded(await ask(api("imagine", "remove"), { body: { numbers: [line.number] } }));
  say(`Picture ${line.number} is removed.`, {
    action: ["Undo", async () => finished(await ask(api("imagine", "add"), { body: { recipes: [line.recipe] } }))],
  });
}

/** Shows what is added, at once or when the task is over that draws it again. */
async function finished(answer) {
  if (answer.task) { await follow(answer.task); answer = await ask(api("imagine")); }
  showAdded(answer);
}

function showAdded(answer) {
  added = answer.added;
  closed = answer.adds_nothing !== "";
  $("added-count").textContent = added.length ? `(${added.length})` : "";
  const train = " They teach when the run is run again (Run).";
  $("added-note").textContent = answer.adds_nothing ? `Nothing can be added: ${answer.adds_nothing}.`
    : !added.length ? (answer.trained ? "Add a picture that you like, and the run trains with it." : `Nothing is added.${train}`)
    : answer.trained ? "The run's classifiers were trained with these." : `The run's classifiers have not been trained with these yet.${train}`;
  $("added").replaceChildren(...added.map((line) => {
    const image = make("img", { src: `${api("imagine", "added", line.number, "png")}?${line.hash}`, alt: `Added ${line.number}, ${line.class}: ${line.way}`, className: "pixels", loading: "lazy" });
    const drop = button("Remove", () => remove(line));
    drop.setAttribute("aria-label", `Remove picture ${line.number}`);
    return make("li", { className: "picture" }, make("div", { className: "frame" }, image), make("p", {}, make("strong", {}, `${line.number}: ${line.class}`), make("br"), line.way), drop);
  }));
  mark();
}

/** Says on each drawn picture whether it is added. */
function mark() {
  const have = new Set(added.map((line) => fieldsOf(line.recipe)));
  for (const b of document.querySelectorAll("[data-add]")) {
    const is = have.has(b.dataset.add);
    b.setAttribute("aria-pressed", is);
    b.textContent = is ? "Added" : "Add";
    b.disabled = closed;
  }
}

// The form

function legend() {
  const share = Number($("distance").value) / 100, to = end();
  const what = !to ? "of a right angle" : to.value ? `of the way to ${to.value}` : "of the way";
  $("far").textContent = `${percent(share)} ${what}`;
  document.querySelectorAll(".ends").forEach((label) => { label.hidden = !label.contains($(kind() === "class" ? "other" : "word")) || kind() === "nothing"; });
  $("between").hidden = !to;
}

let waiting;
async function suggest() {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    const words = await ask(`${api("imagine", "words")}?starts=${encodeURIComponent($("word").value)}`, { quiet: true }).catch(() => []);
    $("words").replaceChildren(...words.map((word) => make("option", { value: word })));
  }, 150);
}

form.addEventListener("input", legend);
$("word").addEventListener("input", suggest);
$("class").addEventListener("change", () => setBase(null));
$("leave-base").addEventListener("click", () => setBase(null));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!check()) return;
  const count = Number($("count").value), to = end();
  const start = base ? base.text : $("class").value;
  draw(`${start}, ${$("far").textContent}${to ? "" : " off"}, seed ${$("seed").value}`, Array.from({ length: count }, (_, i) => recipe(i)));
});
$("between").addEventListener("click", () => {
  if (!check()) return;
  const shares = Array.from({ length: STRIP }, (_, i) => i / (STRIP - 1));
  draw(`From ${base ? base.text : $("class").value} to ${end().value}, seed ${$("seed").value}`, shares.map((share) => recipe(0, share)), { labels: shares.map(percent), way: true });
});
$("stop").addEventListener("click", () => ask(api("imagine", "stop"), { body: { numbers: [...shown.keys()] } }));

// What is on the page survives a reload, as long as the studio remembers the pictures.

function remember() {
  const kept = [...groups.children].map((group) => ({
    title: group.querySelector("h2").textContent,
    way: group.classList.contains("way"),
    keys: [...group.querySelectorAll(".picture")].map((node) => pictureOf(node)?.key),
    labels: [...group.querySelectorAll(".place")].map((node) => node.textContent),
  }));
  try { sessionStorage.setItem(STORE, JSON.stringify(kept)); } catch { /* it is a convenience */ }
}

const places = new WeakMap();
const pictureOf = (node) => places.get(node);

async function restore() {
  let kept = [];
  try { kept = JSON.parse(sessionStorage.getItem(STORE)) ?? []; } catch { /* as above */ }
  for (const { title, way, keys, labels } of kept) {
    const facts = (await Promise.all(keys.map((key) => key && ask(api("imagine", "pictures", key), { quiet: true }).catch(() => null)))).map((f, i) => [f, labels[i]]).filter(([f]) => f);
    if (!facts.length) continue;
    const list = make("ul", { className: "pictures" });
    for (const [f, label] of facts) {
      const p = picture(f.recipe, label);
      p.key = f.key;
      list.append(p.node);
      p.fill(f);
    }
    groups.append(make("div", { className: `group${way ? " way" : ""}`, role: "group", ariaLabel: title }, make("h2", {}, title), list));
    $("empty").hidden = true;
    mark();
  }
}

/** Begins at a row of the run's own outliers. */
async function fromRow(number) {
  const row = await ask(api("imagine", "rows", number)).catch(() => null);
  if (!row) return;
  $("class").value = row.class;
  setBase({ recipe: { start: { kind: "row", value: String(row.row) } }, text: `From ${imagined.slice(0, -1)} ${row.row}` });
}

async function begin() {
  const told = await ask(api("imagine")).catch(() => null);
  if (!told) { $("decoder").textContent = "This run cannot draw."; $("draw").disabled = true; return; }
  for (const select of [$("class"), $("other")]) select.replaceChildren(...told.classes.map((name) => make("option", {}, name)));
  if (told.classes.length > 1) $("other").selectedIndex = 1;
  $("steps").value = told.steps;
  $("guidance").value = told.guidance;
  const wanted = new URLSearchParams(location.search), row = wanted.get("row");
  if (row !== null) await fromRow(row);
  showAdded(told);
  legend();
  await restore();
  if (told.loaded) { $("decoder").hidden = true; return; }
  const words = { waiting: "The decoder waits for other work…", running: "The decoder is being loaded…", failed: "The decoder cannot be loaded." };
  const show = (task) => { $("decoder").textContent = words[task.state] ?? "The decoder is loaded."; };
  await follow(await ask(api("imagine", "decoder"), { body: {} }), show, 500).catch(() => {});
}

if (run) begin();
else { $("decoder").textContent = "There is no run yet."; $("draw").disabled = true; }
