// Try: pictures are sent one at a time, answered and forgotten; the slider asks the guard what it would promise.

import { api, ask, compared, make, run, say } from "./common.js";

const MOST = 60; // answers on the page; older ones go
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const rate = (alpha) => `${+(100 * alpha).toPrecision(3)} %`;
const signed = (value) => value.toFixed(2).replace("-", "−");
const draw = (tag, attributes = {}, text = "") => {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};

let facts; // what the studio says of the run's guard
let moved; // and of it at the slider's alpha
let count = 0;
const SIDE = 512; // pixels of a picture on its card
const tried = new Map(); // number -> {number, item, title, facts, answer}

// The threshold

const alpha = () => facts.alphas[+at("alpha").value];
const limit = (answer) => moved.thresholds?.[answer.likeliest] ?? moved.threshold;
const score = (answer) => answer.score ?? NaN;
const flags = (answer) => !(score(answer) <= limit(answer)); // a score that is no number is flagged

let wanted = null, asking = false;

/** Asks for the slider's alpha; of those that come while an answer is under way only the last one is asked for. */
async function move() {
  at("alpha-shown").textContent = rate(alpha());
  at("alpha").setAttribute("aria-valuetext", `${rate(alpha())} of known pictures`);
  wanted = alpha();
  if (asking) return;
  asking = true;
  try {
    while (wanted !== null) {
      const value = wanted;
      wanted = null;
      moved = await ask(`${api("try", "at")}?alpha=${value}`);
      show();
    }
  } catch { /* it has been said */ } finally { asking = false; }
}

function show() {
  at("promise").textContent = `The guard promises: ${moved.guarantee}.`;
  at("save").textContent = `Save the guard at ${rate(moved.alpha)}`;
  at("own").textContent = `Back to the guard’s own ${rate(facts.alpha)}`;
  at("own").disabled = moved.alpha === facts.alpha;
  const known = moved.known;
  at("about-known").textContent = `Of the ${known.n.toLocaleString("en")} held-out known pictures `
    + `${percent(1 - known.share)} are flagged; the threshold was chosen on them.`
    + (facts.per_class ? " Each class has a threshold of its own; the line is the common one." : "");
  at("accepted").replaceChildren(moved.unknown.length ? table() : make("p", { className: "small soft" },
    "The run has not measured this guard’s detector on unknown pictures."));
  histogram();
  for (const one of tried.values()) if (one.answer) label(one);
  tally();
}

function table() {
  const head = ["Unknown set", "kind", "accepted", "95 % interval", "pictures"];
  const rows = moved.unknown.map((set) => make("tr", {},
    make("th", { scope: "row" }, set.name), make("td", {}, set.group),
    make("td", { className: "n" }, percent(set.share),
      make("progress", { className: "share", max: 1, value: set.share, ariaHidden: "true" })),
    make("td", { className: "n" }, `${percent(set.low)} – ${percent(set.high)}`),
    make("td", { className: "n" }, set.n.toLocaleString("en"))));
  return make("table", {}, make("thead", {}, make("tr", {},
    ...head.map((text, i) => make("th", { scope: "col", className: i > 1 ? "n" : "" }, text)))),
  make("tbody", {}, ...rows));
}

// The histogram

function histogram() {
  const panel = facts.panels[+at("set").value || 0];
  const { width, height } = facts;
  const x = (value) => Math.min(width, Math.max(0, width * (value - panel.low) / (panel.high - panel.low)));
  const cut = x(moved.threshold), svg = at("histogram");
  svg.setAttribute("viewBox", `-10 -26 ${width + 20} ${height + 46}`);
  const parts = [draw("path", { class: "of-known", d: panel.known })];
  if (panel.name) {
    const missed = draw("svg", { width: Math.max(cut, 0.01), height });
    missed.append(draw("path", { class: "missed", d: panel.unknown }));
    parts.push(draw("path", { class: "of-unknown", d: panel.unknown }), missed);
  }
  parts.push(draw("line", { class: "line", x2: width, y1: height, y2: height }),
    draw("line", { class: "cut", x1: cut, x2: cut, y1: -4, y2: height }),
    ...panel.ticks.map(([place, text]) => draw("text", { x: place, y: height + 14 }, text)));
  for (const { number, answer } of tried.values()) {
    if (!answer) continue;
    const group = draw("g", { class: "tried" }), place = x(answer.score ?? Infinity);
    group.append(draw("line", { x1: place, x2: place, y1: -12, y2: height }), draw("circle", { cx: place, cy: -16, r: 9 }),
      draw("text", { x: place, y: -12.5 }, number));
    parts.push(group);
  }
  svg.replaceChildren(...parts);
  const set = moved.unknown.find(({ name }) => name === panel.name);
  const marks = [...tried.values()].filter((one) => one.answer);
  at("histogram-about").textContent = "Gray: held-out known pictures. "
    + (set ? `Colored: ${set.name}, ${percent(set.share)} accepted (solid). ` : "")
    + `Dashed: the threshold, ${signed(moved.threshold)}. Higher scores look stranger.`
    + (marks.length ? ` Numbered marks: your pictures, at ${marks.map((one) => signed(score(one.answer))).join(", ")}.` : "");
}

function quantiles() {
  const panel = facts.panels[+at("set").value || 0];
  const rows = [["held-out known pictures", panel.quantiles.known]];
  if (panel.name) rows.push([panel.name, panel.quantiles.unknown]);
  at("quantiles").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Pictures"),
      ...facts.quantiles.map((q) => make("th", { scope: "col", className: "n" }, rate(q))))),
    make("tbody", {}, ...rows.map(([name, values]) => make("tr", {}, make("th", { scope: "row" }, name),
      ...values.map((value) => make("td", { className: "n" }, signed(value))))))));
}

// Pictures

function tally() {
  const answered = [...tried.values()].filter((one) => one.answer);
  const unknown = answered.filter((one) => flags(one.answer)).length;
  const waiting = [...tried.values()].filter((one) => !one.answer && !one.failed).length;
  const text = answered.length ? `${answered.length} answered: ${answered.length - unknown} known, ${unknown} unknown. ` : "";
  at("tally").textContent = text + (waiting ? `${waiting} on the way…` : "");
  at("clear").hidden = !tried.size;
}

function label(one) {
  const flagged = flags(one.answer);
  one.item.className = flagged ? "unknown" : "known";
  one.title.replaceChildren(make("span", { className: "mark" }, one.number), flagged ? "unknown" : one.answer.likeliest);
  const rows = {
    "p-value": `${one.answer.p_value.toPrecision(2)}, the share of known pictures that look at least as strange`,
    score: `${compared(score(one.answer), limit(one.answer)).join(flagged ? " > " : " ≤ ")}`,
    classes: one.answer.top.slice(0, 3).map(([of, p]) => `${of} ${percent(p)}`).join(", "),
  };
  one.facts.replaceChildren(...Object.entries(rows).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
}

function forget(one) {
  tried.delete(one.number);
  one.item.remove();
}

/** The picture as the guard sees it: of one that moves the first frame. */
function shown(file, name) {
  const canvas = make("canvas", { className: "shown", role: "img", ariaLabel: `Your picture: ${name}` });
  createImageBitmap(file).then((bitmap) => {
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(scale * bitmap.width));
    canvas.height = Math.max(1, Math.round(scale * bitmap.height));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
  }, () => canvas.replaceWith(make("p", { className: "shown small soft" }, "This browser cannot show it.")));
  return canvas;
}

function card(file) {
  const one = { number: ++count };
  const name = file.name || "picture";
  one.title = make("h3", {}, make("span", { className: "mark" }, one.number), "…");
  one.facts = make("dl", { className: "facts" });
  one.alike = make("ul", { className: "alike" });
  const gone = make("button", { type: "button", className: "gone", title: "Remove", ariaLabel: `Remove ${name}` }, "×");
  gone.addEventListener("click", () => { forget(one); histogram(); tally(); at("files").focus(); });
  one.item = make("li", { className: "working" }, shown(file, name),
    make("div", {}, gone, one.title, make("p", { className: "small soft" }, name), one.facts), one.alike);
  tried.set(one.number, one);
  at("answers").prepend(one.item);
  for (const old of tried.values()) { if (tried.size <= MOST) break; forget(old); }
  return one;
}

const formOf = (file) => { const form = new FormData(); form.append("images", file, file.name || "picture.png"); return form; };

async function answer(file, one) {
  try {
    const most = +drop.dataset.bytes - 1000; // less the frame of a form
    if (file.size > most) throw new Error(`The file has ${(file.size / 1e6).toFixed(1)} MB, and may have ${(most / 1e6).toFixed(0)}.`);
    one.answer = (await ask(api("try", "pictures"), { body: formOf(file), quiet: true })).predictions[0];
  } catch (error) {
    one.item.className = "failed";
    one.title.replaceChildren("Not read");
    one.facts.replaceChildren(make("dt", {}, "because"), make("dd", { className: "warn" }, error.message));
    one.failed = true;
    one.item.querySelector(".shown").remove();
    one.alike.remove();
    return false;
  }
  label(one);
  histogram();
  return true;
}

async function alike(file, one) {
  one.alike.replaceChildren(make("li", { className: "wide soft" }, "Looking for known pictures like it…"));
  try {
    const { nearest } = await ask(api("try", "nearest"), { body: formOf(file), quiet: true });
    one.alike.ariaLabel = "The nearest known pictures";
    one.alike.replaceChildren(...nearest[0].map((known) => make("li", {},
      make("img", { src: api("try", "known", known.row), alt: `Known picture of ${known.class}`, loading: "lazy" }),
      known.class, make("span", {}, known.cosine.toFixed(2)))));
  } catch (error) {
    one.alike.replaceChildren(make("li", { className: "wide soft" }, `No known pictures: ${error.message}`));
  }
}

/** Answers pictures one after the other, so that each has its own reason where it is refused. */
async function tryAll(files) {
  const pictures = [...files];
  if (!pictures.length) return;
  if (pictures.length > MOST) say(`Of ${pictures.length} pictures the first ${MOST} are tried.`);
  const cards = pictures.slice(0, MOST).map((file) => [file, card(file)]);
  tally();
  let read = 0;
  for (const [file, one] of cards) {
    if (!tried.has(one.number)) continue;
    if (await answer(file, one)) { read += 1; alike(file, one); }
    tally();
  }
  if (read < cards.length) say(`${cards.length - read} of ${cards.length} pictures were not read.`, { error: true });
}

// Ways in

const drop = at("drop");
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
document.addEventListener("dragover", (event) => { if (holdsFiles(event)) { event.preventDefault(); drop.classList.add("over"); } });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  if (facts) tryAll(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length || !facts) return;
  event.preventDefault();
  tryAll(files);
});
at("files").addEventListener("change", (event) => { tryAll(event.target.files); event.target.value = ""; });
at("clear").addEventListener("click", () => {
  for (const one of [...tried.values()]) forget(one);
  histogram();
  tally();
  at("files").focus();
});

const camera = at("camera"), video = at("video");
let shots = 0;
at("open-camera").addEventListener("click", async () => {
  if (!navigator.mediaDevices?.getUserMedia) { say("This browser gives pages no camera here.", { error: true }); return; }
  try {
    at("shoot").disabled = true;
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    camera.showModal();
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The camera was not allowed." : `There is no camera to use (${error.message}).`, { error: true });
  }
});
video.addEventListener("loadeddata", () => { at("shoot").disabled = false; }); // before it there is nothing to take
at("shoot").addEventListener("click", () => {
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { if (blob) tryAll([new File([blob], `camera ${++shots}.png`, { type: "image/png" })]); }, "image/png");
});
function off() {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}
at("close-camera").addEventListener("click", () => { off(); camera.close(); });
camera.addEventListener("close", off); // by Escape, too

at("alpha").addEventListener("input", move);
at("own").addEventListener("click", () => { at("alpha").value = facts.alphas.indexOf(facts.alpha); move(); });
at("set").addEventListener("change", () => { histogram(); quantiles(); });
at("save").addEventListener("click", async () => {
  const button = at("save");
  button.disabled = true;
  const saving = say("Saving the guard…", { seconds: 600 });
  try {
    const { folder, guarantee, new: fresh } = await ask(api("try", "save"), { body: { alpha: moved.alpha } });
    say(`${fresh ? "Saved" : "It was saved already"}: ${folder} (${guarantee}). Use it with: oodream score PICTURES --run ${folder}`, { seconds: 60 });
  } catch { /* it has been said */ } finally { saving.remove(); button.disabled = false; }
});

async function begin() {
  at("opening").hidden = !run;
  if (!run) { at("problem").textContent = "There is no run yet."; at("problem").hidden = false; return; }
  try {
    facts = await ask(api("try"), { quiet: true });
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
    return;
  } finally { at("opening").hidden = true; }
  at("alpha").max = facts.alphas.length - 1;
  at("alpha").value = facts.alphas.indexOf(facts.alpha);
  at("set").replaceChildren(...facts.panels.map((panel, i) => make("option", { value: i }, panel.name ? `${panel.name} (${panel.group})` : "none measured")));
  at("set").closest("label").hidden = !facts.panels[0].name;
  at("trial").hidden = false;
  quantiles();
  await move();
}

begin();
