// Taking away what is shown: a picture, a table, a labelled file, the lines of Python.

import { outputOf } from "./panels.js";
import { rowOf } from "./answers.js";
import { byId, element, say } from "./elements.js";

/**
 * Show the buttons.
 *
 * @param {object} more  {netcdf() -> Promise<Blob>, or null where there is no server; labelled() -> Promise of what is
 *   shown, with all that is known of each unit}
 */
export function showDownloads(shown, figures, { netcdf, labelled }) {
  const id = shown.first.answer.model.model_id;
  const buttons = [
    button("Picture (PNG)", async () => save(await joined(figures()), `${id}.png`)),
    button("Table (CSV)", async () => save(new Blob([table(await labelled())], { type: "text/csv" }), `${id}.csv`)),
    netcdf ? button("Labelled file (NetCDF)", async () => save(await netcdf(), `${id}.nc`)) : null,
  ];
  byId("downloads").replaceChildren(...buttons.filter(Boolean));
  byId("downloads").hidden = false;
  const lines = byId("lines");
  lines.hidden = false;
  lines.querySelector("code").textContent = shown.first.answer.python;
  lines.querySelector("button").onclick = async () => {
    await navigator.clipboard.writeText(shown.first.answer.python);
    say("Copied.");
  };
}

/** All units of what is shown, one row for each: coordinates, A, B. */
export function table(shown) {
  const stimuli = [shown.first, shown.second].filter(Boolean);
  const blocks = shown.first.answer.outputs.map((output) => {
    const { axes, shape, values } = rowOf(output, shown.first.index);
    const columns = Object.entries(output.coordinates).filter(([, own]) => own.axes.length && own.axes.every((axis) => axes.includes(axis)));
    const others = stimuli.map((one) => rowOf(outputOf(one.answer, output.name), one.index).values);
    const head = ["output", ...columns.map(([name]) => name), ...stimuli.map((one) => `${one.stimulus.name} (${output.shown_unit})`)];
    const rows = Array.from(values.keys(), (flat) => {
      const at = placeOf(flat, shape);
      const labels = columns.map(([, own]) => own.values[own.axes.reduce((sum, axis) => sum * shape[axes.indexOf(axis)] + at[axes.indexOf(axis)], 0)]);
      return [output.name, ...labels, ...others.map((own) => (Number.isFinite(own[flat]) ? own[flat] : ""))];
    });
    return [head, ...rows].map((cells) => cells.map(cell).join(",")).join("\r\n");
  });
  return `${blocks.join("\r\n\r\n")}\r\n`;
}

function placeOf(flat, shape) {
  const place = [];
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    place[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return place;
}

/** A cell of a table; a name that begins like a formula is no formula. */
function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function button(words, act) {
  return element("button", {
    type: "button",
    onclick: async () => {
      try {
        await act();
      } catch (error) {
        say(error.message, true);
      }
    },
  }, words);
}

function joined(canvases) {
  const sheet = document.createElement("canvas");
  sheet.width = Math.max(...canvases.map((own) => own.width));
  sheet.height = canvases.reduce((sum, own) => sum + own.height + 24, 0);
  const context = sheet.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--paper");
  context.fillRect(0, 0, sheet.width, sheet.height);
  let top = 0;
  for (const own of canvases) {
    context.drawImage(own, 0, top);
    top += own.height + 24;
  }
  return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
