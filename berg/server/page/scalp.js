// The scalp: a map of the head at one time, and all channels over time below it.

import { coordinate, labelOf } from "./answers.js";
import { drawFigure, ink, line } from "./figure.js";
import { linesOf } from "./lines.js";
import { footerOf, outputOf, panelsOf } from "./panels.js";
import { scaleOf, shown as number } from "./scales.js";
import { splineWeights } from "./spline.js";

const GRID = 56; // places along each side of a map
let known = { key: "", weights: null };

/** Draw the head at the time of index `at`. */
export function drawScalp(place, shown, drawing, at) {
  const output = outputOf(shown.first.answer, drawing.output);
  const times = coordinate(output, "time");
  const panels = panelsOf(shown, drawing.output);
  const scale = scaleOf(panels.map((panel) => panel.row.values), labelOf(output), true);
  const sensors = placed(drawing);
  const weights = weightsOf(sensors);
  return drawFigure(place, {
    panels: panels.map((panel) => {
      const lines = linesOf(panel.row, times.length);
      const values = sensors.map(({ index }) => lines[index][at]);
      return {
        title: `${panel.title}, ${number(times[at] * 1000)} ms`,
        draw: (context, width) => drawHead(context, width, { sensors, weights, values }, scale),
      };
    }),
    ratio: 1,
    scale,
    largest: 300,
    footer: footerOf(shown.first.answer, sensors.length, `${number(times[at])} s`),
    label: inWords(panels, times, at, output),
  });
}

/** The index of the time at which the channels differ most from each other (global field power). */
export function strongestTime(shown, drawing) {
  const output = outputOf(shown.first.answer, drawing.output);
  const times = coordinate(output, "time");
  const lines = linesOf(panelsOf(shown, drawing.output)[0].row, times.length);
  const power = times.map((_, k) => spread(lines.map((own) => own[k])));
  return power.indexOf(Math.max(...power));
}

function placed(drawing) {
  return drawing.x
    .map((x, index) => ({ x, y: drawing.y[index], index }))
    .filter(({ x, y }) => x !== null && y !== null);
}

function weightsOf(sensors) {
  const key = JSON.stringify(sensors);
  if (known.key !== key) {
    const places = [];
    for (let row = 0; row < GRID; row += 1) {
      for (let column = 0; column < GRID; column += 1) {
        const [x, y] = [onHead(column), -onHead(row)];
        if (x * x + y * y <= 1.05) places.push({ x, y, row, column });
      }
    }
    known = { key, weights: { places, matrix: splineWeights(sensors, places) } };
  }
  return known.weights;
}

function onHead(index) {
  return ((index + 0.5) / GRID) * 2.2 - 1.1;
}

function drawHead(context, side, { sensors, weights, values }, scale) {
  const centre = side / 2;
  const radius = side / 2.35;
  const cell = (2.2 * radius) / GRID;
  context.save();
  context.beginPath();
  context.arc(centre, centre, radius, 0, 2 * Math.PI);
  context.clip();
  weights.places.forEach(({ row, column }, i) => {
    const own = weights.matrix.subarray(i * values.length, (i + 1) * values.length);
    const value = own.reduce((sum, weight, k) => sum + weight * values[k], 0);
    context.fillStyle = `rgb(${scale.colour(value)})`;
    context.fillRect(centre - 1.1 * radius + column * cell, centre - 1.1 * radius + row * cell, cell + 0.6, cell + 0.6);
  });
  context.restore();
  drawOutline(context, centre, radius);
  context.fillStyle = "rgba(0, 0, 0, 0.65)";
  for (const { x, y } of sensors) {
    context.beginPath();
    context.arc(centre + x * radius, centre - y * radius, 1.4, 0, 2 * Math.PI);
    context.fill();
  }
}

function drawOutline(context, centre, radius) {
  const colour = ink().text;
  context.beginPath();
  context.arc(centre, centre, radius, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.stroke();
  line(context, [[centre - 10, centre - radius + 1], [centre, centre - radius - 10], [centre + 10, centre - radius + 1]], colour, 1.5);
  for (const side of [-1, 1]) {
    context.beginPath();
    context.ellipse(centre + side * (radius + 3), centre, 4, 14, 0, 0, 2 * Math.PI);
    context.stroke();
  }
}

function spread(values) {
  const finite = values.filter(Number.isFinite);
  const mean = finite.reduce((sum, value) => sum + value, 0) / finite.length;
  return Math.sqrt(finite.reduce((sum, value) => sum + (value - mean) ** 2, 0) / finite.length);
}

function inWords(panels, times, at, output) {
  const channels = coordinate(output, "channel");
  const sentences = panels.map(({ title, row }) => {
    const values = linesOf(row, times.length).map((own) => own[at]);
    const largest = values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
    return `${title}: largest ${number(values[largest])} at channel ${channels[largest]}`;
  });
  return `Scalp at ${number(times[at] * 1000)} ms, ${labelOf(output)}. ${sentences.join(". ")}.`;
}
