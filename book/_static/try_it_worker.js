// Runs the networks beside the page, which stays at hand meanwhile. Takes { id, task, picture }, answers { id, made }.

import { addShares, argmax, cellSide, mean, mirrored, plane, resize, shrink } from "./try_it_maps.js";

const FOLDER = new URL("try_it/", import.meta.url);
const there = (name) => new URL(name, FOLDER).href;
const once = (make) => {
  let made;
  return () => (made ??= make());
};
const parts = once(async () => (await fetch(there("parts.json"))).json());

// Whether there is a graphics card, not a slow imitation of one, in a browser that can wait for it as the runtime does.
async function onGpu() {
  const adapter = "Suspending" in WebAssembly && (await navigator.gpu?.requestAdapter().catch(() => null));
  return Boolean(adapter) && adapter.info?.isFallbackAdapter === false;
}

async function open(kind) {
  const { runtimes, attention, segmentation } = await parts();
  const ort = await import(there(runtimes[kind].script));
  ort.env.wasm.wasmPaths = { wasm: there(runtimes[kind].binary) };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const options = { executionProviders: [kind], logSeverityLevel: 3 }; // errors only
  const read = ({ file }) => ort.InferenceSession.create(there(file), options);
  const made = { kind, ort, attention: await read(attention), segmentation: once(() => read(segmentation)) };
  if (kind === "webgpu") await run(made, made.attention, [[0, 1, 2].map(() => plane(64, 64))]); // some cards cannot
  return made;
}

const networks = once(async () => ((await onGpu()) ? open("webgpu").catch(() => open("wasm")) : open("wasm")));

// Red, green and blue, each a plane of 0..255.
function channels({ data, height, width }) {
  const colors = [0, 1, 2].map(() => plane(height, width));
  for (let k = 0; k < height * width; k++) for (let c = 0; c < 3; c++) colors[c].data[k] = data[4 * k + c];
  return colors;
}

// The outputs for pictures of one size, each a list of such planes, by their names.
function run({ ort }, session, pictures) {
  const [{ height, width }] = pictures[0];
  const input = new Float32Array(pictures.length * 3 * height * width);
  pictures.flat().forEach(({ data }, k) => input.set(data, k * data.length));
  for (let k = 0; k < input.length; k++) input[k] /= 255;
  return session.run({ pictures: new ort.Tensor("float32", input, [pictures.length, 3, height, width]) });
}

function planes({ data, dims: [, count, height, width] }, picture) {
  const size = height * width;
  const start = (c) => (picture * count + c) * size;
  return Array.from({ length: count }, (_, c) => plane(height, width, data.slice(start(c), start(c) + size)));
}

// As dsna_lib.maps.iterate_maps averages the maps of several sizes and of mirror images, on the grid of the first size.
async function maps(picture) {
  const { attention } = await parts();
  const { attention: session, ...runtime } = await networks();
  const colors = channels(picture);
  const views = [];
  for (const scale of attention.scales) {
    const side = Math.round(scale * attention.size);
    const shown = colors.map((color) => shrink(color, side, side, true));
    const outputs = await run(runtime, session, attention.flip ? [shown, shown.map(mirrored)] : [shown]);
    for (const turn of attention.flip ? [0, 1] : [0]) views.push(viewOf(outputs, turn));
  }
  const { height, width } = views[0].background[0];
  const averaged = (name) =>
    views[0][name].map((_, c) => mean(views.map((view) => resize(view[name][c], height, width))));
  const made = Object.fromEntries(["expansive", "discriminative", "merged", "background"].map((n) => [n, averaged(n)]));
  const scores = views[0].scores.map((_, c) => views.reduce((sum, view) => sum + view.scores[c], 0) / views.length);
  return { ...made, scores };
}

function viewOf(outputs, turn) {
  const { scores, ...others } = outputs;
  const back = turn ? mirrored : (same) => same;
  const named = Object.entries(others).map(([name, output]) => [name, planes(output, turn).map(back)]);
  const count = scores.dims[1];
  return { ...Object.fromEntries(named), scores: [...scores.data.slice(turn * count, (turn + 1) * count)] };
}

// As dsna_lib.segmentation.inference.probabilities averages several sizes; the likeliest class of each pixel.
async function mask(picture) {
  const { segmentation, colors } = await parts();
  const runtime = await networks();
  const session = await runtime.segmentation();
  const { height, width } = picture;
  const sums = colors.map(() => new Float32Array(height * width));
  for (const scale of segmentation.scales) {
    const sides = [height, width].map((side) => cellSide(side, scale, segmentation.stride));
    const { logits } = await run(runtime, session, [channels(picture).map((color) => shrink(color, ...sides, false))]);
    addShares(planes(logits, 0), height, width, sums);
  }
  return argmax(sums);
}

const tasks = { maps, mask };

async function answer({ id, task, picture }) {
  try {
    self.postMessage({ id, made: await tasks[task](picture), kind: (await networks()).kind });
  } catch (error) {
    self.postMessage({ id, error: String(error.message ?? error) });
  }
}

let queue = Promise.resolve(); // a network does one thing at a time
self.addEventListener("message", ({ data }) => {
  queue = queue.then(() => answer(data));
});
