// Thin-plate splines (Duchon 1977): a smooth map through sensors, as weights, so that each time is one product.

/**
 * The weights from sensors to places, shape (n_places, n_sensors) in one array.
 *
 * The spline of values v is f(p) = sum_k w_k u(|p - s_k|) + a + b x + c y with u(r) = r^2 log r, through all sensors and
 * with w orthogonal to 1, x, y. It is linear in v: f = G K^-1 v.
 */
export function splineWeights(sensors, places) {
  const n = sensors.length;
  const size = n + 3;
  const system = Array.from({ length: size }, (_, i) => Float64Array.from({ length: size }, (__, j) => entry(sensors, n, i, j)));
  const inverse = inverted(system);
  const weights = new Float32Array(places.length * n);
  places.forEach((place, p) => {
    const basis = [...sensors.map((sensor) => kernel(place, sensor)), 1, place.x, place.y];
    for (let k = 0; k < n; k += 1) {
      let sum = 0;
      for (let i = 0; i < size; i += 1) sum += basis[i] * inverse[i][k];
      weights[p * n + k] = sum;
    }
  });
  return weights;
}

function entry(sensors, n, i, j) {
  if (i < n && j < n) return kernel(sensors[i], sensors[j]);
  if (i >= n && j >= n) return 0;
  const [sensor, power] = i < n ? [sensors[i], j - n] : [sensors[j], i - n];
  return [1, sensor.x, sensor.y][power];
}

function kernel(one, other) {
  const squared = (one.x - other.x) ** 2 + (one.y - other.y) ** 2;
  return squared === 0 ? 0 : 0.5 * squared * Math.log(squared);
}

/** The inverse by Gauss and Jordan with pivots. */
function inverted(system) {
  const size = system.length;
  const rows = system.map((row, i) => {
    const wide = new Float64Array(2 * size);
    wide.set(row);
    wide[size + i] = 1;
    return wide;
  });
  for (let column = 0; column < size; column += 1) {
    let pivot = column;
    for (let i = column + 1; i < size; i += 1) if (Math.abs(rows[i][column]) > Math.abs(rows[pivot][column])) pivot = i;
    [rows[column], rows[pivot]] = [rows[pivot], rows[column]];
    const own = rows[column];
    const factor = 1 / own[column];
    for (let j = column; j < 2 * size; j += 1) own[j] *= factor;
    for (let i = 0; i < size; i += 1) {
      const times = rows[i][column];
      if (i === column || times === 0) continue;
      for (let j = column; j < 2 * size; j += 1) rows[i][j] -= times * own[j];
    }
  }
  return rows.map((row) => row.subarray(size));
}
