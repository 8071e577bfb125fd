// Figures on a canvas: panels side by side, one colour bar, a line below that says what is shown.

import { shown, ticks } from "./scales.js";

const FONT = "13px system-ui, sans-serif";
const SMALL = "11px system-ui, sans-serif";
const RESOLUTION = 2; // pixels of the canvas for each of the page, so that a downloaded picture is sharp
const BAR_WIDTH = 96;

/**
 * Draw panels beside each other, or below each other where the page is narrow.
 *
 * @param {HTMLElement} place  what the canvas is put into, in place of what it holds
 * @param {object} figure  {panels: [{title, draw(context, width, height)}], ratio, tall, scale, footer, label, largest}
 *   ratio: height by width of a panel, or tall: its height in pixels; scale: of the colour bar, or null; label: the figure in words
 * @returns {HTMLCanvasElement}
 */
export function drawFigure(place, { panels, ratio, tall, scale, footer, label, largest = 460 }) {
  const room = Math.max(260, place.clientWidth || 640) - (scale ? BAR_WIDTH : 0);
  const columns = room / panels.length >= 160 ? panels.length : 1;
  const width = Math.min(largest, room / columns - 12);
  const height = tall ?? width * ratio;
  const rows = Math.ceil(panels.length / columns);
  const sizes = { top: 26, gap: 12, footer: 26 };
  const total = [columns * (width + sizes.gap) + (scale ? BAR_WIDTH : 0), rows * (height + sizes.top) + sizes.footer];
  const canvas = document.createElement("canvas");
  const context = prepared(canvas, ...total);
  panels.forEach((panel, index) => {
    const x = (index % columns) * (width + sizes.gap);
    const y = Math.floor(index / columns) * (height + sizes.top);
    text(context, clipped(context, panel.title, width), x + width / 2, y + 16, { align: "center" });
    context.save();
    context.translate(x, y + sizes.top);
    panel.draw(context, width, height);
    context.restore();
  });
  if (scale) drawColourBar(context, scale, columns * (width + sizes.gap) + 8, sizes.top, Math.min(height, 320));
  text(context, clipped(context, footer, total[0], SMALL), 0, total[1] - 8, { font: SMALL, faint: true });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  place.replaceChildren(canvas);
  return canvas;
}

/** Colours of the page now: light or dark. */
export function ink() {
  const style = getComputedStyle(document.documentElement);
  return {
    text: style.getPropertyValue("--text").trim(),
    faint: style.getPropertyValue("--faint").trim(),
    paper: style.getPropertyValue("--paper").trim(),
    line: style.getPropertyValue("--line").trim(),
    first: style.getPropertyValue("--first").trim(),
    second: style.getPropertyValue("--second").trim(),
  };
}

/** Write a text on a canvas. */
export function text(context, words, x, y, { align = "left", font = FONT, faint = false, turned = false } = {}) {
  context.save();
  context.font = font;
  context.fillStyle = faint ? ink().faint : ink().text;
  context.textAlign = align;
  context.translate(x, y);
  if (turned) context.rotate(-Math.PI / 2);
  context.fillText(words, 0, 0);
  context.restore();
}

/** A path through points, drawn. */
export function line(context, points, colour, width = 1) {
  context.beginPath();
  let isDown = false;
  for (const [x, y] of points) {
    if (!Number.isFinite(y)) {
      isDown = false;
    } else if (isDown) {
      context.lineTo(x, y);
    } else {
      context.moveTo(x, y);
      isDown = true;
    }
  }
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

/** Axes around a rectangle, with numbers; returns the functions from values to places. */
export function axes(context, box, x, y) {
  const { left, top, width, height } = box;
  const atX = (value) => left + ((value - x.low) / (x.high - x.low)) * width;
  const atY = (value) => top + height - ((value - y.low) / (y.high - y.low)) * height;
  const colours = ink();
  for (const value of ticks(x.low, x.high, width / 45)) {
    line(context, [[atX(value), top + height], [atX(value), top + height + 4]], colours.faint);
    text(context, shown(value), atX(value), top + height + 16, { align: "center", font: SMALL, faint: true });
  }
  for (const value of ticks(y.low, y.high, height / 45)) {
    line(context, [[left, atY(value)], [left + width, atY(value)]], colours.line, value === 0 ? 1.5 : 0.5);
    text(context, shown(value), left - 6, atY(value) + 4, { align: "right", font: SMALL, faint: true });
  }
  text(context, x.label, left + width / 2, top + height + 32, { align: "center", font: SMALL });
  text(context, y.label, left - 46, top + height / 2, { align: "center", font: SMALL, turned: true });
  return { atX, atY };
}

function prepared(canvas, width, height) {
  canvas.width = Math.round(width * RESOLUTION);
  canvas.height = Math.round(height * RESOLUTION);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(RESOLUTION, RESOLUTION);
  context.fillStyle = ink().paper;
  context.fillRect(0, 0, width, height);
  return context;
}

function drawColourBar(context, scale, x, top, height) {
  const width = 14;
  const bottom = top + height;
  const at = (value) => bottom - ((value - scale.low) / (scale.high - scale.low)) * height;
  for (let i = 0; i < height; i += 1) {
    const value = scale.low + ((height - i) / height) * (scale.high - scale.low);
    context.fillStyle = `rgb(${scale.colour(value)})`;
    context.fillRect(x, top + i, width, 1.5);
  }
  if (scale.extend.high) triangle(context, x, top, width, -10, scale.colour(scale.high));
  if (scale.extend.low) triangle(context, x, bottom, width, 10, scale.colour(scale.low));
  for (const value of ticks(scale.low, scale.high, 5)) {
    line(context, [[x + width, at(value)], [x + width + 4, at(value)]], ink().text);
    text(context, shown(value), x + width + 7, at(value) + 4, { font: SMALL });
  }
  text(context, scale.label, x + 78, top + height / 2, { align: "center", font: SMALL, turned: true });
}

function triangle(context, x, y, width, height, colour) {
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + width, y);
  context.lineTo(x + width / 2, y + height);
  context.fillStyle = `rgb(${colour})`;
  context.fill();
}

function clipped(context, words, width, font = FONT) {
  context.font = font;
  if (context.measureText(words).width <= width) return words;
  let end = words.length;
  while (end > 1 && context.measureText(`${words.slice(0, end)}\u2026`).width > width) end -= 1;
  return `${words.slice(0, end)}\u2026`;
}
