// Responses over time: a line for each unit, and above them the sound that was heard.

import { coordinate, labelOf } from "./answers.js";
import { axes, drawFigure, ink, line, text } from "./figure.js";
import { footerOf, outputOf, panelsOf } from "./panels.js";
import { quantile, shown as number } from "./scales.js";

const MOST_LINES = 400; // of units that are drawn one by one
const SMALL = "11px system-ui, sans-serif";

/** Draw a line for each unit against time. */
export function drawLines(place, shown, drawing) {
  const output = outputOf(shown.first.answer, drawing.output);
  const times = coordinate(output, "time");
  const panels = panelsOf(shown, drawing.output).map((panel) => ({ ...panel, lines: linesOf(panel.row, times.length) }));
  const y = limitsOf(panels.flatMap((panel) => panel.lines), labelOf(output));
  const x = { low: times[0], high: times[times.length - 1], label: "Time (s)" };
  const nUnits = panels[0].lines.length;
  return drawFigure(place, {
    panels: panels.map(({ title, lines, stimulus }) => ({
      title,
      draw: (context, width, height) => drawPanel(context, { width, height }, { times, lines, sound: stimulus?.sound }, { x, y }),
    })),
    ratio: panels.length > 1 ? 0.9 : 0.55,
    scale: null,
    largest: panels.length > 1 ? 420 : 760,
    footer: footerOf(shown.first.answer, nUnits, nUnits > MOST_LINES ? `every ${Math.ceil(nUnits / MOST_LINES)}th unit` : ""),
    label: inWords(panels, times, output),
  });
}

/** The lines of a row whose last axis, or first, is time. */
export function linesOf({ axes: names, shape, values }, nTimes) {
  const at = names.indexOf("time");
  const n = values.length / nTimes;
  const step = at === names.length - 1 ? 1 : shape.slice(at + 1).reduce((a, b) => a * b, 1);
  return Array.from({ length: n }, (_, unit) => {
    const start = step === 1 ? unit * nTimes : Math.floor(unit / step) * step * nTimes + (unit % step);
    return Float32Array.from({ length: nTimes }, (__, k) => values[start + k * step]);
  });
}

function drawPanel(context, { width, height }, { times, lines, sound }, { x, y }) {
  const above = sound ? 40 : 0;
  const box = { left: 62, top: above + 4, width: width - 70, height: height - above - 48 };
  const { atX, atY } = axes(context, box, x, y);
  if (sound) drawSound(context, sound, { ...box, top: 2, height: above - 8 }, atX);
  const kept = lines.filter((_, i) => i % Math.ceil(lines.length / MOST_LINES) === 0);
  context.globalAlpha = Math.max(0.12, Math.min(1, 6 / kept.length));
  for (const own of kept) line(context, Array.from(own, (value, k) => [atX(times[k]), atY(value)]), ink().first, 1.3);
  context.globalAlpha = 1;
}

function drawSound(context, { samples, rate }, box, atX) {
  const middle = box.top + box.height / 2;
  const largest = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const perPixel = Math.max(1, Math.floor(samples.length / box.width));
  context.fillStyle = ink().faint;
  for (let start = 0; start < samples.length; start += perPixel) {
    const height = (samples.subarray(start, start + perPixel).reduce((most, value) => Math.max(most, Math.abs(value)), 0) / largest) * box.height;
    const at = atX(start / rate);
    if (at <= box.left + box.width) context.fillRect(at, middle - height / 2, 1, Math.max(height, 0.5));
  }
  text(context, "sound", box.left - 6, middle + 4, { align: "right", font: SMALL, faint: true });
}

function limitsOf(lines, label) {
  const values = lines.flatMap((own) => Array.from(own).filter(Number.isFinite));
  const [low, high] = [Math.min(0, quantile(values, 0)), Math.max(0, quantile(values, 1))];
  const room = 0.05 * (high - low || 1);
  return { low: low - (low < 0 ? room : 0), high: high + room, label };
}

function inWords(panels, times, output) {
  const sentences = panels.map(({ title, lines }) => {
    let [largest, at] = [-Infinity, 0];
    for (const own of lines) own.forEach((value, k) => { if (value > largest) [largest, at] = [value, times[k]]; });
    return `${title}: largest ${number(largest)} at ${number(at)} s`;
  });
  return `${panels[0].lines.length} units over time, ${labelOf(output)}. ${sentences.join(". ")}.`;
}
