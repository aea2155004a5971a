// The method's steps after the networks, as the library has them in maps.py, annotate.py and segmentation/inference.py.
// A plane is { data, height, width }, its numbers row by row.

export const VOID = 255;
const EPSILON = 2 ** -23; // of 32-bit numbers

export function plane(height, width, data = new Float32Array(height * width)) {
  return { data, height, width };
}

export function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

export function mirrored({ data, height, width }) {
  return plane(height, width, data.map((_, k) => data[k + width - 1 - 2 * (k % width)]));
}

// Which two cells each new cell lies between, and how near to the second. Corners lie on corners, or do not.
function between(from, to, corners) {
  const places = { first: new Int32Array(to), second: new Int32Array(to), share: new Float32Array(to) };
  for (let k = 0; k < to; k++) {
    const at = corners ? (to > 1 ? (k * (from - 1)) / (to - 1) : 0) : Math.max(0, ((k + 0.5) * from) / to - 0.5);
    places.first[k] = Math.min(Math.floor(at), from - 1);
    places.second[k] = Math.min(places.first[k] + 1, from - 1);
    places.share[k] = at - places.first[k];
  }
  return places;
}

// Bilinear, as torch.nn.functional.interpolate does it.
export function resize({ data, height: rows, width: columns }, height, width, corners = false) {
  const [y, x] = [between(rows, height, corners), between(columns, width, corners)];
  const made = new Float32Array(height * width);
  for (let i = 0, k = 0; i < height; i++) {
    const [above, below, down] = [y.first[i] * columns, y.second[i] * columns, y.share[i]];
    for (let j = 0; j < width; j++, k++) {
      const [left, right, across] = [x.first[j], x.second[j], x.share[j]];
      const upper = (1 - across) * data[above + left] + across * data[above + right];
      const lower = (1 - across) * data[below + left] + across * data[below + right];
      made[k] = (1 - down) * upper + down * lower;
    }
  }
  return plane(height, width, made);
}

// What each new cell is the mean of where a row is made shorter: a triangle as wide as two new cells.
function triangles(from, to) {
  const step = from / to;
  const reach = Math.max(step, 1);
  return Array.from({ length: to }, (_, k) => {
    const center = step * (k + 0.5);
    const start = Math.max(Math.trunc(center - reach + 0.5), 0);
    const length = Math.min(Math.trunc(center + reach + 0.5), from) - start;
    const weights = Array.from({ length }, (_, j) => Math.max(0, 1 - Math.abs((j + start - center + 0.5) / reach)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}

function shrinkRows({ data, height, width }, to, round) {
  const made = new Float32Array(height * to);
  const means = triangles(width, to);
  for (let i = 0, k = 0; i < height; i++)
    for (const { start, weights } of means) {
      let sum = 0;
      for (let j = 0; j < weights.length; j++) sum += weights[j] * data[i * width + start + j];
      made[k++] = round ? Math.round(sum) : sum;
    }
  return plane(height, to, made);
}

function turned({ data, height, width }) {
  const made = new Float32Array(data.length);
  for (let i = 0, k = 0; i < height; i++) for (let j = 0; j < width; j++) made[j * height + i] = data[k++];
  return plane(width, height, made);
}

// As torchvision resizes a picture with antialiasing; one of whole numbers it rounds after each direction.
export function shrink(picture, height, width, round) {
  return turned(shrinkRows(turned(shrinkRows(picture, width, round)), height, round));
}

export function mean(planes) {
  const [{ height, width }] = planes;
  const made = plane(height, width);
  for (const { data } of planes) data.forEach((value, k) => (made.data[k] += value / planes.length));
  return made;
}

// p-hat of Eq. 11: the softmax of the scores, or the sigmoid of one alone.
export function scoreWeight(scores) {
  if (scores.length === 1) return [1 / (1 + Math.exp(-scores[0]))];
  const highest = Math.max(...scores);
  const parts = Array.from(scores, (score) => Math.exp(score - highest));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

// Eq. 11 with a weight of one's own.
export function merge(expansive, discriminative, weight) {
  const mix = (value, k) => weight * value + (1 - weight) * discriminative.data[k];
  return plane(expansive.height, expansive.width, expansive.data.map(mix));
}

// What thresholds are applied to: planes at the picture's size, with their ranges. A constant one says nothing.
export function cues(planes, height, width) {
  return planes.map((small) => {
    const [low, high] = range(small.data);
    const varied = high - low > 100 * EPSILON * Math.max(Math.abs(high), Math.abs(low));
    const large = resize(small, height, width);
    return { ...large, range: range(large.data), varied };
  });
}

// Where a share of the way from the lowest to the highest value lies, in 32-bit numbers.
function level({ range: [low, high] }, share) {
  return Math.fround(low + Math.fround(Math.fround(share) * Math.fround(high - low)));
}

// Hard labels from the cues of the classes present, whose 0-based numbers ascend, and from that of the background.
// Foreground beats background, the smallest region beats larger ones, what nobody claims is void; without labels all is
// background.
export function combine(classes, background, labels, foregroundThreshold, backgroundThreshold) {
  const mask = new Uint8Array(background.data.length).fill(labels.length ? VOID : 0);
  const low = level(background, backgroundThreshold);
  if (background.varied) background.data.forEach((value, k) => value < low && (mask[k] = 0));
  const regions = classes.map((cue, place) => {
    const high = level(cue, foregroundThreshold);
    const region = cue.varied ? Uint8Array.from(cue.data, (value) => value > high) : new Uint8Array(mask.length);
    return { region, label: labels[place] + 1, area: region.reduce((a, b) => a + b, 0) };
  });
  for (const { region, label } of regions.sort((a, b) => b.area - a.area))
    region.forEach((claimed, k) => claimed && (mask[k] = label));
  return mask;
}

// A pseudo-annotation: maps and the background cue as small planes.
export function annotate(maps, background, labels, height, width, foregroundThreshold, backgroundThreshold) {
  const made = cues([...maps, background], height, width);
  return combine(made.slice(0, -1), made.at(-1), labels, foregroundThreshold, backgroundThreshold);
}

// The highest of several maps at each place, each scaled to 0..1.
export function highest(made, height, width) {
  const shown = plane(height, width);
  for (const { data, range: [low, high] } of made) {
    const scale = high > low ? 1 / (high - low) : 0;
    data.forEach((value, k) => (shown.data[k] = Math.max(shown.data[k], (value - low) * scale)));
  }
  return shown;
}

// Adds to `sums`, one for each class, the softmax of scores at the picture's size.
export function addShares(logits, height, width, sums) {
  const large = logits.map((scores) => resize(scores, height, width, true).data);
  for (let k = 0; k < height * width; k++) {
    let [top, sum] = [-Infinity, 0];
    for (const scores of large) if (scores[k] > top) top = scores[k];
    for (const scores of large) sum += scores[k] = Math.exp(scores[k] - top);
    large.forEach((scores, c) => (sums[c][k] += scores[k] / sum));
  }
}

export function argmax(planes) {
  const best = (k) => planes.reduce((top, data, c) => (data[k] > planes[top][k] ? c : top), 0);
  return Uint8Array.from(planes[0], (_, k) => best(k));
}

// To the nearest whole number, from the middle to the even one, as Python does it.
function rounded(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

// A side of a picture at a scale, so that the network's outer cells lie on its border.
export function cellSide(side, scale, stride) {
  return stride * Math.max(1, rounded((scale * side - 1) / stride)) + 1;
}
