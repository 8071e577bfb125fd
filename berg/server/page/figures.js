// The figures of an answer, the best first, each in its place on the page.

import { drawBars } from "./bars.js";
import { coordinate } from "./answers.js";
import { Cortex, drawFlat, prepareCortex, readMeshes, VIEWS } from "./cortex.js";
import { element } from "./elements.js";
import { drawLines } from "./lines.js";
import { outputOf } from "./panels.js";
import { shown as number } from "./scales.js";
import { drawScalp, strongestTime } from "./scalp.js";
import { drawVisualField } from "./visual_field.js";

const TITLES = {
  visual_field: "Visual field", cortex: "Cortex", scalp: "Scalp", rate: "Over time", time_course: "Over time", bars: "Regions",
};

/**
 * Draw all that an answer can be drawn as; resolves to a function that returns the canvases as they are then.
 *
 * @param {HTMLElement} place
 * @param {object} shown  {first, second}
 * @param {object} view  {time, view}: what was looked at before; changed as a person looks elsewhere, and `changed()` called
 * @param {object} source  of meshes
 */
export async function drawFigures(place, shown, view, source, changed) {
  const { drawings } = shown.first.answer;
  if (!drawings.length) {
    place.replaceChildren(element("p", { className: "hint" }, "Nothing of this answer can be drawn; it can be downloaded below."));
    return () => [];
  }
  const found = [];
  const figures = drawings.map((drawing) => {
    const body = element("div");
    return { drawing, body, figure: element("figure", {}, element("figcaption", {}, TITLES[drawing.kind]), body) };
  });
  place.replaceChildren(...figures.map((own) => own.figure)); // before drawing, which asks for the room
  for (const { drawing, body } of figures) found.push(await draw(body, drawing, shown, view, source, changed));
  return () => found.flatMap((canvases) => canvases());
}

async function draw(body, drawing, shown, view, source, changed) {
  if (drawing.kind === "cortex") return cortex(body, drawing, shown, view, source, changed);
  if (drawing.kind === "scalp") return scalp(body, drawing, shown, view, changed);
  const by = { visual_field: drawVisualField, rate: drawLines, time_course: drawLines, bars: drawBars }[drawing.kind];
  const canvas = by(body, shown, drawing);
  return () => [canvas];
}

function scalp(body, drawing, shown, view, changed) {
  const times = coordinate(outputOf(shown.first.answer, drawing.output), "time");
  const given = view.time === undefined ? -1 : nearest(times, Number(view.time));
  let at = given >= 0 ? given : strongestTime(shown, drawing);
  const map = element("div");
  const course = element("div");
  let canvas = null;
  const show = () => {
    canvas = drawScalp(map, shown, drawing, at);
    slider.setAttribute("aria-valuetext", `${number(times[at] * 1000)} milliseconds`);
  };
  const slider = element("input", {
    type: "range", min: 0, max: times.length - 1, step: 1, value: at, "aria-label": "Time after the stimulus",
    oninput: () => {
      at = Number(slider.value);
      view.time = String(times[at]);
      show();
      changed();
    },
  });
  body.append(map, slider, course);
  show();
  const lines = drawLines(course, shown, drawing);
  return () => [canvas, lines];
}

async function cortex(body, drawing, shown, view, source, changed) {
  await readMeshes(source);
  const prepared = prepareCortex(shown);
  const flat = element("div");
  const controls = element("div", { className: "row" });
  body.append(flat, controls);
  const canvas = drawFlat(flat, shown, drawing, prepared);
  let solid = null;
  try {
    solid = await Cortex.get(body);
  } catch (error) {
    body.append(element("p", { className: "hint" }, `This browser cannot draw what can be turned (WebGL 2): ${error.message}`));
    return () => [canvas];
  }
  let chosen = prepared.panels[0];
  view.view = view.view in VIEWS ? view.view : "from behind";
  const show = () => {
    solid.colour(chosen.row.values, prepared.scale, `The cortex ${view.view}, ${chosen.title}. Turn it with the mouse or a finger.`);
    solid.look(view.view);
  };
  const panels = element("select", { "aria-label": "Stimulus", onchange: () => { chosen = prepared.panels[panels.selectedIndex]; show(); } },
    ...prepared.panels.map((panel) => element("option", {}, panel.title)));
  controls.append(...(prepared.panels.length > 1 ? [panels] : []), ...Object.keys(VIEWS).map((name) =>
    element("button", { type: "button", onclick: () => { view.view = name; show(); changed(); } }, name)));
  show();
  return () => [canvas, solid.picture()];
}

function nearest(times, wanted) {
  if (!Number.isFinite(wanted)) return -1;
  return times.reduce((best, value, i) => (Math.abs(value - wanted) < Math.abs(times[best] - wanted) ? i : best), 0);
}
