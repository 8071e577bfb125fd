// Which colours stand for which responses, after the rules of berg.plotting.colours: signed responses symmetric about 0,
// to the 99th percentile of all panels together; others from 0. NaN is background.

import { COLOUR_MAPS } from "./colour_maps.js";

const QUANTILE = 0.99;
export const BACKGROUND = [209, 209, 209];

/** A scale for all panels (arrays of numbers): {low, high, label, extend, colour(value) -> [r, g, b]}. */
export function scaleOf(panels, label, isSigned) {
  const values = Float64Array.from(panels.flatMap((panel) => Array.from(panel).filter(Number.isFinite)));
  let low = 0;
  let high = 1;
  if (values.length) {
    high = quantile(isSigned ? values.map(Math.abs) : values, QUANTILE);
    low = isSigned ? -high : Math.min(0, quantile(values, 1 - QUANTILE));
    if (!(low < high)) [low, high] = [high - 1, high + 1];
  }
  const stops = parsed(COLOUR_MAPS[isSigned ? "RdBu_r" : "magma"]);
  const extend = {
    low: values.some((value) => value < low),
    high: values.some((value) => value > high),
  };
  return { low, high, label, extend, colour: (value) => colourAt(stops, (value - low) / (high - low)) };
}

/** The value below which a share of the values lies, interpolated. */
export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)];
  const above = sorted[Math.ceil(place)];
  return below + (above - below) * (place - Math.floor(place));
}

/** Round numbers between two limits, about as many as asked for. */
export function ticks(low, high, about = 5) {
  const rough = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((own) => own >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1) found.push(i * step);
  return found;
}

/** A number with three digits that count, and a real minus sign. */
export function shown(value) {
  if (!Number.isFinite(value)) return "unknown";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  return text.replace("-", "\u2212");
}

function parsed(text) {
  return text.match(/.{6}/g).map((stop) => [0, 2, 4].map((at) => parseInt(stop.slice(at, at + 2), 16)));
}

function colourAt(stops, share) {
  if (!Number.isFinite(share)) return BACKGROUND;
  const place = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, stops.length - 1);
  return stops[below].map((value, i) => Math.round(value + (stops[above][i] - value) * (place - below)));
}
