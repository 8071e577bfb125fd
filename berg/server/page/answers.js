// From answers of the server to numbers: rows of stimuli, means over repetitions, differences.

/** The bytes of little-endian numbers in base64, as an array of a type. */
export function fromBase64(text, Type = Float32Array) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Type(bytes.buffer);
}

/** An answer whose numbers are typed arrays, ready to be drawn. */
export function unpacked(answer) {
  for (const output of answer.outputs) {
    output.numbers = numbersOf(output);
    output.numbers.forEach((value, i) => { output.numbers[i] = value * output.shown_factor; });
  }
  for (const drawing of answer.drawings) {
    for (const hemisphere of Object.values(drawing.hemispheres ?? {})) hemisphere.numbers = numbersOf(hemisphere);
  }
  return answer;
}

/** The responses of one stimulus, axis "repetition" averaged: {axes, shape, values}. */
export function rowOf(output, index) {
  const size = output.numbers.length / output.shape[0];
  const own = output.numbers.subarray(index * size, (index + 1) * size);
  const axes = output.axes.slice(1);
  const shape = output.shape.slice(1);
  const at = axes.indexOf("repetition");
  return at < 0 ? { axes, shape, values: own } : averaged({ axes, shape, values: own }, at);
}

/** One array minus another of the same shape. */
export function minus(first, second) {
  return first.map((value, i) => value - second[i]);
}

/** The correlation of two arrays over the places where both are numbers. */
export function correlation(first, second) {
  let [n, x, y, xx, yy, xy] = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i < first.length; i += 1) {
    if (Number.isFinite(first[i]) && Number.isFinite(second[i])) {
      n += 1;
      x += first[i];
      y += second[i];
    }
  }
  for (let i = 0; i < first.length; i += 1) {
    if (Number.isFinite(first[i]) && Number.isFinite(second[i])) {
      const [a, b] = [first[i] - x / n, second[i] - y / n];
      xx += a * a;
      yy += b * b;
      xy += a * b;
    }
  }
  return xy / Math.sqrt(xx * yy);
}

/** The label of an output's colour bar: quantity and unit. */
export function labelOf(output) {
  const quantity = output.quantity[0].toUpperCase() + output.quantity.slice(1);
  return output.shown_unit && output.shown_unit !== output.quantity ? `${quantity} (${output.shown_unit})` : quantity;
}

/** The labels along one axis, as they stand in an output. */
export function coordinate(output, name) {
  return output.coordinates[name]?.values ?? null;
}

function numbersOf(part) {
  if (part.values_base64 !== null && part.values_base64 !== undefined) return fromBase64(part.values_base64);
  return Float32Array.from(part.values, (value) => value ?? NaN);
}

function averaged({ axes, shape, values }, at) {
  const after = shape.slice(at + 1).reduce((a, b) => a * b, 1);
  const before = values.length / (after * shape[at]);
  const means = new Float32Array(before * after);
  for (let i = 0; i < before; i += 1) {
    for (let k = 0; k < shape[at]; k += 1) {
      for (let j = 0; j < after; j += 1) means[i * after + j] += values[(i * shape[at] + k) * after + j] / shape[at];
    }
  }
  const without = (list) => list.filter((_, i) => i !== at);
  return { axes: without(axes), shape: without(shape), values: means };
}
