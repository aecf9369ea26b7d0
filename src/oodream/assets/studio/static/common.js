// What all pages share: asking the studio, messages, progress of heavy work, keys.

export const run = document.body.dataset.run;

/** What the chosen run imagines: "outliers" or "inliers". */
export const imagined = document.body.dataset.imagined;

const KEPT = 4; // messages on the page at once
const EXACT = 17; // decimals, at most, of a score beside a threshold

const AWAY = "The studio does not answer. Is it still running?";

/**
 * Says something in the live region. `action` is [label, function]. Errors stay until they are dismissed; what
 * stands there already is not said again.
 */
export function say(text, { error = false, action = null, seconds = 6 } = {}) {
  const region = document.getElementById("messages");
  const same = [...region.children].find((box) => box.firstChild.textContent === text);
  if (same && error) return same;
  same?.remove();
  const box = document.createElement("div");
  if (error) { box.className = "error"; box.setAttribute("role", "alert"); }
  box.append(Object.assign(document.createElement("span"), { textContent: text }));
  const button = (label, work) => {
    const b = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    b.addEventListener("click", () => { box.remove(); work?.(); });
    box.append(b);
  };
  if (action) button(...action);
  if (error) button("Dismiss"); else setTimeout(() => box.remove(), seconds * 1000);
  region.append(box);
  while (region.children.length > KEPT) region.firstChild.remove();
  return box;
}

/**
 * A score and a threshold in digits, with as many decimals, two at least, as it takes for a score above the
 * threshold to be seen above it.
 */
export function compared(score, threshold) {
  let texts = [`${score}`, `${threshold}`];
  for (let digits = EXACT; digits >= 2; digits--) {
    const shorter = [score.toFixed(digits), threshold.toFixed(digits)];
    if ((+shorter[0] > +shorter[1]) !== (score > threshold)) break;
    texts = shorter;
  }
  return texts.map((text) => text.replace("-", "−"));
}

/** A path of the API for the chosen run: api("outliers", "rows") is /api/outliers/RUN/rows. */
export function api(part, ...rest) {
  return ["/api", part, run, ...rest].map((x, i) => (i ? encodeURIComponent(x) : x)).join("/");
}

/**
 * Asks the studio and returns the answer's JSON. With `body` (an object, or a FormData) it posts.
 * What is refused is said in the live region, once, and thrown as an Error with `status`; it is taken back when
 * the same is asked again and answered.
 */
export async function ask(path, { body, method, signal, quiet = false } = {}) {
  const options = { method: method ?? (body === undefined ? "GET" : "POST"), signal };
  const of = `${options.method} ${path.split("?")[0]}`;
  if (body instanceof FormData || body instanceof Blob) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  let response, text;
  try {
    response = await fetch(path, options);
    takeBack((box) => box.firstChild.textContent === AWAY);
    if (response.ok) {
      takeBack((box) => box.dataset.of === of);
      return response.status === 204 ? null : await response.json();
    }
    text = (await response.json().catch(() => ({}))).detail ?? `The studio answered ${response.status}.`;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    text = AWAY;
  }
  if (!quiet) say(text, { error: true }).dataset.of = of;
  throw Object.assign(new Error(text), { status: response?.status ?? 0 });
}

/** Takes back the messages that no longer hold. */
function takeBack(over) {
  for (const box of [...document.getElementById("messages").children]) if (over(box)) box.remove();
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Follows a task {id, state, progress, message, error} until it is over, and returns its last state; it throws
 * when the task failed. `show(task)` is called at every look.
 */
export async function follow(task, show = () => {}, every = 300) {
  for (;;) {
    show(task);
    if (task.state === "failed") { say(task.error, { error: true }); throw new Error(task.error); }
    if (task.state === "done" || task.state === "stopped") return task;
    await pause(every);
    task = await ask(`/api/tasks/${task.id}`);
  }
}

/** A progress bar with a label and a button that stops; returns {node, show} for `follow`. */
export function bar(label) {
  const node = document.createElement("div");
  node.className = "task";
  const text = Object.assign(document.createElement("label"), { className: "small soft", textContent: label });
  const line = Object.assign(document.createElement("progress"), { max: 1, value: 0 });
  const stop = Object.assign(document.createElement("button"), { type: "button", textContent: "Stop" });
  text.append(line);
  node.append(text, stop);
  let id = null;
  stop.addEventListener("click", () => id && ask(`/api/tasks/${id}/stop`, { method: "POST" }).catch(() => {}));
  const show = (task) => {
    id = task.id;
    line.value = task.progress;
    text.firstChild.textContent = task.message || label;
    if (["done", "failed", "stopped"].includes(task.state)) node.remove();
  };
  return { node, show };
}

/** An element: make("p", {className: "soft"}, "text", other). Text is never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value; else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** Calls `bindings[key]` for keys that are pressed outside of fields; keys with Ctrl, Alt or Meta are "Ctrl+z". */
export function keys(bindings) {
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]")) return;
    const prefix = event.ctrlKey || event.metaKey ? "Ctrl+" : event.altKey ? "Alt+" : "";
    const work = bindings[prefix + event.key];
    if (work && work(event) !== false) event.preventDefault();
  });
}

document.getElementById("chosen-run")?.addEventListener("change", (event) => {
  const place = new URL(location.href);
  place.search = new URLSearchParams({ run: event.target.value });
  location.href = place;
});
