// Regions: mean responses, and beside them how well each is predicted and could be.

import { drawFigure, ink, line, text } from "./figure.js";
import { footerOf } from "./panels.js";
import { labelOf } from "./answers.js";
import { shown as number, ticks } from "./scales.js";

const ROW = 22;
const SMALL = "11px system-ui, sans-serif";

/** Draw a bar for each region and stimulus; the line is the noise ceiling. */
export function drawBars(place, shown, drawing) {
  const output = shown.first.answer.outputs[0];
  const means = (one) => one.answer.drawings.find((own) => own.kind === "bars").regions.map((region) => scaled(region, one, output));
  const stimuli = [shown.first, shown.second].filter(Boolean);
  const series = stimuli.map((one, i) => ({ name: one.stimulus.name, values: means(one), colour: i ? ink().second : ink().first }));
  const regions = drawing.regions;
  const panels = [{ title: "Mean response", draw: (...room) => drawRegions(...room, regions, series, labelOf(output)) }];
  if (regions.some((region) => region.accuracy !== null || region.ceiling !== null)) {
    panels.push({ title: "Accuracy on held-out data", draw: (...room) => drawAccuracy(...room, regions) });
  }
  return drawFigure(place, {
    panels,
    tall: regions.length * ROW + (series.length > 1 ? 62 : 42),
    scale: null,
    largest: 400,
    footer: footerOf(shown.first.answer, regions.reduce((n, region) => n + region.n_units, 0), drawing.note),
    label: inWords(regions, series, labelOf(output)),
  });
}

function scaled(region, one, output) {
  const value = region.mean[one.index];
  return value === null ? NaN : value * output.shown_factor;
}

function drawRegions(context, width, height, regions, series, label) {
  const values = series.flatMap((own) => own.values).filter(Number.isFinite);
  const box = { left: 92, width: width - 104, height: regions.length * ROW };
  const at = scaleX(context, box, Math.min(0, ...values), Math.max(0, ...values), label);
  regions.forEach((region, i) => {
    nameOf(context, region, i);
    const thick = (ROW - 6) / series.length;
    series.forEach(({ values: own, colour }, k) => {
      if (!Number.isFinite(own[i])) return;
      context.fillStyle = colour;
      context.fillRect(Math.min(at(0), at(own[i])), i * ROW + 3 + k * thick, Math.abs(at(own[i]) - at(0)), thick - 0.5);
    });
  });
  if (series.length < 2) return;
  series.forEach(({ name, colour }, k) => {
    context.fillStyle = colour;
    context.fillRect(k * (width / 2), height - 13, 10, 10);
    text(context, name.slice(0, 24), k * (width / 2) + 14, height - 4, { font: SMALL });
  });
}

function drawAccuracy(context, width, height, regions) {
  const box = { left: 92, width: width - 104, height: regions.length * ROW };
  const least = Math.min(0, ...regions.map((region) => region.accuracy ?? 0));
  const at = scaleX(context, box, least, 1, "Correlation r; the line: noise ceiling");
  regions.forEach((region, i) => {
    nameOf(context, region, i);
    if (region.accuracy !== null) {
      context.fillStyle = ink().faint;
      context.fillRect(Math.min(at(0), at(region.accuracy)), i * ROW + 3, Math.abs(at(region.accuracy) - at(0)), ROW - 6);
    }
    if (region.ceiling !== null) line(context, [[at(region.ceiling), i * ROW + 1], [at(region.ceiling), i * ROW + ROW - 1]], ink().text, 2);
  });
}

function scaleX(context, box, low, high, label) {
  const top = high > low ? high : low + 1;
  const at = (value) => box.left + ((value - low) / (top - low)) * box.width;
  for (const value of ticks(low, top, box.width / 70)) {
    line(context, [[at(value), 0], [at(value), box.height]], ink().line, value === 0 ? 1.5 : 0.5);
    text(context, number(value), at(value), box.height + 14, { align: "center", font: SMALL, faint: true });
  }
  text(context, label, box.left + box.width / 2, box.height + 30, { align: "center", font: SMALL });
  return at;
}

function nameOf(context, region, i) {
  text(context, region.name.slice(0, 14), 86, i * ROW + 15, { align: "right", font: SMALL });
}

function inWords(regions, series, label) {
  const sentences = series.map(({ name, values }) => {
    const each = regions.map((region, i) => `${region.name} ${number(values[i])}`);
    return `${name}: ${each.slice(0, 12).join(", ")}${each.length > 12 ? ", and others" : ""}`;
  });
  return `Mean of each region, ${label}. ${sentences.join(". ")}.`;
}
