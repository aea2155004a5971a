// The page "Try it": what the reader chooses, and pictures of what the networks say, which run in try_it_worker.js.

import { VOID, combine, cues, highest, merge, scoreWeight } from "./try_it_maps.js";

const FOLDER = new URL("try_it/", import.meta.url);
const page = document.getElementById("try-it-application");
const find = (selector) => page.querySelector(selector);
const said = find(".try-it-said");
const control = Object.fromEntries([...page.querySelectorAll(".try-it-numbers [name]")].map((e) => [e.name, e]));
const parts = await (await fetch(new URL("parts.json", FOLDER))).json();
const KINDS = ["expansive", "discriminative", "merged"];
const names = parts.attention.class_names;
const percent = (share) => `${Math.round(100 * share)}%`;
const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;

// --- the networks ---------------------------------------------------------------------------------------------------

const worker = new Worker(new URL("try_it_worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
worker.addEventListener("message", ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) reject(new Error(data.error));
  else resolve(data);
});
worker.addEventListener("error", ({ message }) => waiting.forEach(({ reject }) => reject(new Error(message))));

let asked = 0;
function ask(task, picture) {
  const id = asked++;
  worker.postMessage({ id, task, picture });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

// --- pictures -------------------------------------------------------------------------------------------------------

async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, parts.side / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white"; // below what is transparent
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// Each pixel mixed with a color: levelOf(k) says which of the table's, [red, green, blue, share].
function painted({ data, height, width }, table, levelOf) {
  const made = new ImageData(new Uint8ClampedArray(data), width, height);
  for (let k = 0; k < height * width; k++) {
    const color = table[levelOf(k)];
    for (let c = 4 * k; c < 4 * k + 3; c++) made.data[c] += color[3] * (color[c - 4 * k] - made.data[c]);
  }
  return made;
}

const heatColors = parts.heat.map((color) => [...color, parts.strength]);

function heat(picture, { data }) {
  return painted(picture, heatColors, (k) => Math.min(255, Math.floor(256 * data[k])));
}

// Classes in their colors; void is hatched.
const HATCH = VOID + 1;
const maskColors = parts.colors.map((color, label) => [...color, label ? parts.strength : 0]);
[maskColors[VOID], maskColors[HATCH]] = [[255, 255, 255, parts.strength], [0, 0, 0, 1]];

function overlay(picture, mask) {
  const striped = (k) => mask[k] === VOID && ((k % picture.width) + Math.floor(k / picture.width)) % 9 < 2;
  return painted(picture, maskColors, (k) => (striped(k) ? HATCH : mask[k]));
}

function draw(panel, image, text, words = "") {
  const figure = find(`[data-panel="${panel}"]`);
  const canvas = figure.querySelector("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", text);
  const caption = figure.querySelector("figcaption");
  caption.dataset.title ??= caption.textContent;
  caption.textContent = caption.dataset.title + words;
}

// The values in a mask, the most frequent first, with how many pixels each has.
function counted(mask) {
  const counts = new Uint32Array(VOID + 1);
  for (const value of mask) counts[value]++;
  return [...counts.entries()].filter(([, count]) => count).sort(([, a], [, b]) => b - a);
}

// Which share of a mask each of its classes has, in words.
function shares(mask) {
  const nameOf = (value) => ({ 0: "background", [VOID]: "void" })[value] ?? names[value - 1];
  return counted(mask).map(([value, count]) => `${nameOf(value)} ${percent(count / mask.length)}`).join(", ");
}

// --- what is shown --------------------------------------------------------------------------------------------------

// The picture, its maps, the annotation and the segmentation network's mask, once they are there. The console has it as
// document.getElementById("try-it-application").answer
let now = null; // with the cues that thresholds are applied to

const labels = () => [...page.querySelectorAll(".try-it-classes input")].flatMap((box, c) => (box.checked ? [c] : []));

function showNumbers() {
  control.weight.disabled = control.predicted.checked;
  for (const slider of page.querySelectorAll(".try-it-numbers input[type=range]"))
    slider.parentElement.querySelector("output").value = Number(slider.value).toFixed(2);
}

// Heat maps of some kinds: those that a choice has changed.
function showMaps(kinds) {
  if (!now) return;
  const { picture, maps } = now;
  const { height, width } = picture;
  const chosen = labels();
  const own = Number(control.weight.value);
  const weights = control.predicted.checked ? scoreWeight(maps.scores) : names.map(() => own);
  const weighted = (c) => merge(maps.expansive[c], maps.discriminative[c], own);
  const listed = chosen.map((c) => names[c]).join(", ") || "no class";
  for (const kind of kinds) {
    const mine = kind === "merged" && !control.predicted.checked;
    now.cues[kind] = cues(chosen.map((c) => (mine ? weighted(c) : maps[kind][c])), height, width);
    const words = kind === "merged" ? chosen.map((c) => `, p̂ ${weights[c].toFixed(2)} for ${names[c]}`).join("") : "";
    const image = heat(picture, highest(now.cues[kind], height, width));
    draw(kind, image, `Heat map over the photograph, ${kind} map of ${listed}`, words);
  }
  showAnnotation();
}

function showAnnotation() {
  showNumbers();
  if (!now) return;
  const { merged, background } = now.cues;
  const thresholds = [Number(control.foreground.value), Number(control.background.value)];
  const mask = combine(merged, background, labels(), ...thresholds);
  now.annotation = control.void.value === "background" ? mask.map((value) => (value === VOID ? 0 : value)) : mask;
  const words = shares(now.annotation);
  draw("annotation", overlay(now.picture, now.annotation), `Pseudo-annotation over the photograph: ${words}`, words);
  showLegend();
}

function showMask() {
  const words = shares(now.mask);
  draw("segmentation", overlay(now.picture, now.mask), `Mask of the segmentation network: ${words}`, words);
  find('[data-panel="segmentation"]').hidden = false;
  showLegend();
}

function showLegend() {
  const values = new Set([now.annotation, now.mask ?? []].flatMap((mask) => counted(mask).map(([value]) => value)));
  values.delete(0);
  const lines = [...values].sort((a, b) => a - b).map((value) => {
    const line = document.createElement("li");
    line.append(swatch(value), value === VOID ? "void: not sure" : names[value - 1]);
    return line;
  });
  find(".try-it-legend").replaceChildren(...lines);
}

function swatch(value) {
  const square = document.createElement("span");
  square.className = value === VOID ? "try-it-color void" : "try-it-color";
  if (value !== VOID) square.style.background = `rgb(${parts.colors[value]})`;
  return square;
}

// The classes that are ticked at first: those that are known, else those that the network thinks likelier than not.
function tick(known) {
  const { scores } = now.maps;
  const likely = names.map((_, c) => c).filter((c) => scores[c] > 0);
  const first = known ?? (likely.length ? likely : [scores.indexOf(Math.max(...scores))]);
  const weights = scoreWeight(scores);
  page.querySelectorAll(".try-it-classes label").forEach((label, c) => {
    label.querySelector("input").checked = first.includes(c);
    label.lastElementChild.textContent = weights[c] < 0.005 ? "" : `p̂ ${weights[c].toFixed(2)}`;
  });
}

async function show(name, blob, known) {
  const began = performance.now();
  const turn = (show.turn = (show.turn ?? 0) + 1);
  const late = () => turn !== show.turn; // another picture was chosen meanwhile
  const seconds = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  const size = parts.runtimes.wasm.bytes + parts.attention.bytes + parts.segmentation.bytes;
  said.textContent = `${name}: computing. The first time, ${megabytes(size)} are loaded from this site.`;
  page.dataset.state = "computing";
  try {
    const picture = await pixelsOf(await blob);
    const { made: maps, kind } = await ask("maps", picture);
    if (late()) return;
    const [background] = cues(maps.background, picture.height, picture.width);
    page.answer = now = { picture, maps, cues: { background } };
    find(".try-it-answer").hidden = false;
    find('[data-panel="segmentation"]').hidden = true;
    tick(known);
    draw("picture", picture, "The photograph");
    showMaps(KINDS);
    const where = kind === "webgpu" ? "graphics card" : "processor";
    const words = `maps and annotation after ${seconds()}, on the ${where}. The segmentation network follows.`;
    said.textContent = `${name}: ${words}`;
    page.dataset.state = "maps";
    const { made: mask } = await ask("mask", picture);
    if (late()) return;
    now.mask = mask;
    showMask();
    said.textContent = `${name}: all after ${seconds()}, on the ${where}.`;
    page.dataset.state = "done";
  } catch (error) {
    if (late()) return;
    const unreadable = error.name === "InvalidStateError" && "is no picture that this browser can read";
    said.textContent = `${name} ${unreadable || `failed: ${error.message}`}; choose another one.`;
    page.dataset.state = "failed";
  }
}

// --- what is chosen -------------------------------------------------------------------------------------------------

function press(button) {
  for (const other of page.querySelectorAll(".try-it-choices button"))
    other.setAttribute("aria-pressed", other === button);
}

function photographButton({ file, name, label }) {
  const [button, image] = [document.createElement("button"), document.createElement("img")];
  Object.assign(image, { src: new URL(file, FOLDER), alt: "" });
  button.type = "button";
  button.setAttribute("aria-pressed", false);
  button.append(image, name);
  button.addEventListener("click", () => {
    press(button);
    show(name, fetch(image.src).then((answer) => answer.blob()), [names.indexOf(label)]);
  });
  return button;
}

function classBox(name, c) {
  const [label, box, weight] = ["label", "input", "span"].map((tag) => document.createElement(tag));
  box.type = "checkbox";
  box.addEventListener("change", () => showMaps(KINDS));
  label.append(box, swatch(c + 1), name, weight);
  return label;
}

function own(files) {
  if (!files.length) return;
  press(null);
  show(files[0].name, files[0], null);
}

function acceptDrops(area) {
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") own(event.dataTransfer.files);
    });
}

function drawScale() {
  const scale = find(".try-it-scale canvas").getContext("2d");
  const colors = new Uint8ClampedArray(parts.heat.flatMap((color) => [...color, 255]));
  scale.putImageData(new ImageData(colors, 256, 1), 0, 0);
}

[control.foreground.value, control.background.value] = parts.thresholds;
for (const name of ["predicted", "weight"]) control[name].addEventListener("input", () => showMaps(["merged"]));
for (const name of ["foreground", "background", "void"]) control[name].addEventListener("input", showAnnotation);
find(".try-it-choices").append(...parts.photographs.map(photographButton));
find(".try-it-classes").append(...names.map(classBox));
find(".try-it-own input").addEventListener("change", ({ target }) => own(target.files));
acceptDrops(find(".try-it-own"));
drawScale();
showNumbers();
document.querySelector(".try-it-waiting").remove();
page.hidden = false;
page.dataset.state = "ready";
