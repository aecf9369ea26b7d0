// Run: starts runs, shows how far they are, stops and resumes them.

import { ask, make, say } from "./common.js";

const BUSY = 1000, IDLE = 5000; // milliseconds between two looks
const SLOW = 15; // seconds after which a stop that does not happen may be forced

const $ = (id) => document.getElementById(id);
const cards = new Map(); // name -> card
let next = null;

const words = {
  running: "at work", stopping: "stopping", done: "finished", stopped: "stopped", failed: "refused, or failed", killed: "ended from outside",
  elsewhere: "not finished", damaged: "cannot be read",
};

const atWork = (one) => one.state === "running" || one.state === "stopping";

function seconds(s) {
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${(s / 3600).toFixed(1)} h`;
}

// The list

async function look() {
  clearTimeout(next);
  let runs;
  try {
    runs = await ask("/api/run", { quiet: cards.size > 0 });
  } catch {
    next = setTimeout(look, IDLE);
    return;
  }
  $("none").hidden = runs.length > 0;
  for (const name of cards.keys()) if (!runs.some((one) => one.name === name)) { cards.get(name).node.remove(); cards.delete(name); }
  runs.forEach((one, place) => {
    if (!cards.has(one.name)) cards.set(one.name, card(one.name));
    const { node, show } = cards.get(one.name);
    if ($("runs").children[place] !== node) $("runs").insertBefore(node, $("runs").children[place] ?? null);
    show(one);
  });
  next = setTimeout(look, document.hidden ? 6 * IDLE : runs.some(atWork) ? BUSY : IDLE);
}

/** A run's card, which is changed only where the run has changed, so that focus and selections stay. */
function card(name) {
  const state = make("span"), where = make("p", { className: "soft small" }), wrong = make("p", { className: "wrong", hidden: true });
  const line = make("progress", { max: 1, value: 0 }), text = document.createTextNode("");
  const bar = make("label", { hidden: true }, text, line), stages = make("ol", { className: "stages" }), does = make("div", { className: "row" });
  const summary = make("summary"), fold = make("details", {}, summary, stages);
  const link = (part, text) => make("a", { href: `/${part}?run=${encodeURIComponent(name)}` }, text);
  const pictures = link("outliers", ""), written = make("p", { className: "small" });
  const links = make("p", { className: "small" }, pictures, " · ", link("imagine", "Imagine"), " · ", link("try", "Try"));
  const node = make("article", { className: "job panel", ariaLabel: name }, make("h2", {}, name, state), where, wrong, bar, fold, links, written, does);
  let before = "", halted = 0, last = "";
  const act = (label, path, body, then) => {
    const b = make("button", { type: "button" }, label);
    b.addEventListener("click", async () => {
      b.disabled = true;
      try { show(await ask(`/api/run/${encodeURIComponent(name)}/${path}`, { body })); then?.(); } catch { /* it has been said */ } finally { b.disabled = false; look(); }
    });
    return b;
  };
  const stopping = () => { say(`${name} is stopping; it goes on from there when it is resumed.`); };
  const late = () => halted > 0 && Date.now() - halted > 1000 * SLOW;
  function buttons(one) {
    if (!document.getElementById("new")) return [];
    if (one.state === "running") return [act("Stop", "stop", { force: false }, stopping)];
    if (one.state === "stopping") return late() ? [act("End at once", "stop", { force: true })] : [];
    if (one.state === "damaged") return [];
    const again = act({ done: "Run again", failed: "Try again" }[one.state] ?? "Resume", "resume", { changed: false });
    const changed = /--redo changed/.test(one.message) ? [act("Resume with what has changed", "resume", { changed: true })] : [];
    return [again, ...changed];
  }
  function show(one) {
    halted = one.state === "stopping" ? halted || Date.now() : 0;
    const now = JSON.stringify([one, late()]);
    if (now === before) return;
    before = now;
    state.textContent = words[one.state];
    state.className = one.state;
    where.textContent = one.folder;
    wrong.hidden = !one.message;
    wrong.textContent = one.message;
    const active = atWork(one);
    bar.hidden = !active;
    const over = one.stages.filter((stage) => stage.state === "done"), done = over.length;
    fold.hidden = !one.stages.length;
    summary.textContent = `${done} of ${one.stages.length} stages, ${seconds(over.reduce((sum, stage) => sum + stage.seconds, 0))}`;
    if (last !== one.state) fold.open = active;
    last = one.state;
    links.hidden = !one.command;
    const pages = { [`/reports/${encodeURIComponent(name)}`]: one.report && "Report", [`/comparisons/${encodeURIComponent(name)}/`]: one.comparison && "Comparison" };
    const linked = Object.entries(pages).filter(([, text]) => text).flatMap(([href, text]) => [" · ", make("a", { href }, text)]);
    written.hidden = !linked.length;
    written.replaceChildren(...linked.slice(1));
    pictures.textContent = one.imagined[0].toUpperCase() + one.imagined.slice(1);
    const current = one.stages.find((stage) => stage.state === "running");
    const share = one.bar ? one.bar.done / one.bar.total : 0;
    if (one.stages.length) line.value = (done + share) / one.stages.length; else line.removeAttribute("value");
    text.nodeValue = !one.stages.length ? "Starting: looking at options and images…"
      : [`Stage ${Math.min(done + 1, one.stages.length)} of ${one.stages.length}: ${one.bar ? `${one.bar.what}, ${one.bar.done} of ${one.bar.total}` : current?.name ?? "finishing"}`,
         one.bar?.left != null ? `${seconds(one.bar.left)} left of it` : "", one.left != null ? `about ${seconds(one.left)} of all` : ""].filter(Boolean).join(" · ");
    stages.replaceChildren(...one.stages.map((stage) => make("li", { className: stage.state, ariaLabel: `${stage.name}: ${stage.state}` }, stage.name,
      make("span", {}, stage.state === "done" ? seconds(stage.seconds) : stage.state === "running" ? "now" : stage.expected != null && active ? `about ${seconds(stage.expected)}` : "–"))));
    const made = buttons(one), labels = (list) => [...list].map((b) => b.textContent).join();
    if (labels(made) !== labels(does.children)) {
      const focused = does.contains(document.activeElement);
      does.replaceChildren(...made);
      if (focused) made[0]?.focus();
    }
  }
  return { node, show };
}

// The form

function preset() {
  const chosen = $("preset").selectedOptions[0];
  $("about").textContent = chosen.dataset.about;
  $("data").required = !chosen.dataset.data;
  $("data").placeholder = chosen.dataset.data || "/home/me/pictures";
  name();
}

let named = false;
function name() {
  if (named) return;
  const place = $("data").value || ($("preset").value === "folder" ? "" : $("preset").value);
  $("name").value = (place.split(/[/\\]/).filter(Boolean).pop() ?? "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 64);
}

if ($("new")) {
  $("preset").addEventListener("change", preset);
  $("data").addEventListener("input", name);
  $("name").addEventListener("input", () => { named = $("name").value !== ""; });
  $("new").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    button.disabled = true;
    let wrong = "";
    try {
      const one = await ask("/api/run", { quiet: true, body: { preset: $("preset").value, data: $("data").value.trim(), name: $("name").value.trim(), seeds: Number($("seeds").value) } });
      say(`${one.name} is started.`);
      named = false;
    } catch (error) { wrong = error.message; } finally { button.disabled = false; }
    $("refused").hidden = !wrong;
    $("refused").textContent = wrong;
    await look();
  });
  preset();
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
