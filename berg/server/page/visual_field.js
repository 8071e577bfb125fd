// The visual field: a dot for each unit at the centre of its receptive field.

import { coordinate, labelOf } from "./answers.js";
import { axes, drawFigure, ink } from "./figure.js";
import { footerOf, outputOf, panelsOf } from "./panels.js";
import { scaleOf, shown as number, ticks } from "./scales.js";

const AROUND = 1.3; // of the picture's width is shown: what lies beyond hardly sees it
const [SMALLEST, LARGEST] = [1.6, 6]; // radius of a dot, pixels

/** Draw the responses where the units see. */
export function drawVisualField(place, shown, drawing) {
  const output = outputOf(shown.first.answer, drawing.output);
  const [x, y, size] = ["x_deg", "y_deg", "size_deg"].map((name) => coordinate(output, name));
  const panels = panelsOf(shown, drawing.output);
  const scale = scaleOf(panels.map((panel) => panel.row.values), labelOf(output), output.is_signed || panels.length > 1);
  const reach = reachOf(x, y, drawing.width_deg);
  const nOutside = x.filter((own, unit) => Math.max(Math.abs(own), Math.abs(y[unit])) > reach).length;
  const note = `${nOutside ? `${nOutside} outside` : "all inside"}; larger dots: larger receptive fields`;
  return drawFigure(place, {
    panels: panels.map((panel) => ({
      title: panel.title,
      draw: (context, width) => {
        const box = { left: 56, top: 0, width: width - 60, height: width - 60 };
        const limits = { low: -reach, high: reach };
        const at = axes(context, box, { ...limits, label: "x (deg)" }, { ...limits, label: "y (deg)" });
        clip(context, box);
        drawField(context, at, reach, { width: drawing.width_deg, picture: panel.stimulus?.picture });
        drawUnits(context, at, (box.width / 2 / reach), { x, y, size, values: panel.row.values }, scale);
        context.restore();
      },
    })),
    ratio: 0.98,
    scale,
    footer: footerOf(shown.first.answer, x.length, note),
    label: inWords(panels, x, y, output),
  });
}

function reachOf(x, y, width) {
  if (width) return (AROUND * width) / 2;
  const places = [...x, ...y].filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
  return 1.1 * (places[Math.floor(0.98 * (places.length - 1))] ?? 1);
}

function clip(context, { left, top, width, height }) {
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
}

function drawField(context, { atX, atY }, reach, { width, picture }) {
  const colours = ink();
  const half = (width ?? 0) / 2;
  const side = atX(half) - atX(-half);
  if (picture && width) {
    context.globalAlpha = 0.3;
    context.drawImage(picture, atX(-half), atY(half), side, side);
    context.globalAlpha = 1;
  }
  for (const degrees of ticks(0, reach, 3).slice(1)) {
    context.beginPath();
    context.arc(atX(0), atY(0), atX(degrees) - atX(0), 0, 2 * Math.PI);
    context.strokeStyle = colours.faint;
    context.lineWidth = 0.6;
    context.stroke();
  }
  context.strokeStyle = colours.faint;
  if (width) context.strokeRect(atX(-half), atY(half), side, side);
}

function drawUnits(context, { atX, atY }, perDegree, { x, y, size, values }, scale) {
  const order = Array.from(values.keys()).sort((a, b) => (size ? size[b] - size[a] : 0)); // small ones on top
  for (const unit of order) {
    if (!Number.isFinite(values[unit])) continue;
    const radius = Math.min(LARGEST, Math.max(SMALLEST, 0.12 * perDegree * (size?.[unit] ?? 0)));
    context.beginPath();
    context.arc(atX(x[unit]), atY(y[unit]), radius, 0, 2 * Math.PI);
    context.fillStyle = `rgb(${scale.colour(values[unit])})`;
    context.fill();
    context.strokeStyle = "rgba(0, 0, 0, 0.25)";
    context.lineWidth = 0.4;
    context.stroke();
  }
}

function inWords(panels, x, y, output) {
  const sentences = panels.map(({ title, row }) => {
    const largest = row.values.reduce((best, value, unit) => (value > row.values[best] || Number.isNaN(row.values[best]) ? unit : best), 0);
    return `${title}: largest ${number(row.values[largest])} at x ${number(x[largest])}, y ${number(y[largest])} degrees`;
  });
  return `Visual field, ${x.length} units, ${labelOf(output)}. ${sentences.join(". ")}.`;
}
