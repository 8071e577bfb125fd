// More like this: which pictures of a folder have responses like those to A.

import { correlation, rowOf, unpacked } from "./answers.js";
import { byId, element, say } from "./elements.js";
import { shown as number } from "./scales.js";

const AT_ONCE = 8; // stimuli in a request
const MOST_SHOWN = 12;

/**
 * Offer the search. `encode(stimuli, signal)` resolves to an answer to them.
 *
 * Responses of all outputs are one pattern. From each unit its mean over the folder and A is taken away; the figure is the
 * correlation of the patterns over units, as in berg.experiments.
 */
export function showSimilar(first, endings, encode) {
  const place = byId("similar");
  place.hidden = false;
  const found = element("ol");
  const progress = element("progress", { hidden: true, "aria-label": "Pictures encoded" });
  let running = null;
  const files = element("input", {
    type: "file", multiple: true, webkitdirectory: "", hidden: true,
    onchange: () => search([...files.files].filter((file) => endings.some((ending) => file.name.toLowerCase().endsWith(ending)))),
  });
  const stop = element("button", { type: "button", hidden: true, onclick: () => running?.abort() }, "Stop");
  place.replaceChildren(
    element("h3", { id: "similar-heading" }, `More like ${first.stimulus.name}`),
    element("div", { className: "row" }, element("button", { type: "button", onclick: () => files.click() }, "Choose a folder\u2026"), stop, files),
    progress, found,
  );

  async function search(folder) {
    if (!folder.length) {
      say(`There is no file in that folder that this model takes: ${endings.join(", ")}.`, true);
      return;
    }
    running = new AbortController();
    Object.assign(progress, { hidden: false, max: folder.length, value: 0 });
    stop.hidden = false;
    try {
      const rows = await encoded(folder, encode, progress, running.signal);
      show(found, ranked(patternOf(first.answer, first.index), rows));
      say(`${rows.length} of ${folder.length} encoded.`);
    } catch (error) {
      say(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
    } finally {
      progress.hidden = true;
      stop.hidden = true;
    }
  }
}

/** Files by how alike their patterns are to another, the most alike first: [{file, r}]. */
export function ranked(pattern, rows) {
  const mean = new Float64Array(pattern.length);
  for (const own of [pattern, ...rows.map((row) => row.pattern)]) own.forEach((value, i) => { mean[i] += value / (rows.length + 1); });
  const centred = (own) => own.map((value, i) => value - mean[i]);
  const wanted = centred(pattern);
  return rows
    .map(({ file, pattern: own }) => ({ file, r: correlation(wanted, centred(own)) }))
    .filter(({ r }) => Number.isFinite(r))
    .sort((a, b) => b.r - a.r);
}

async function encoded(folder, encode, progress, signal) {
  const rows = [];
  for (let start = 0; start < folder.length; start += AT_ONCE) {
    const files = folder.slice(start, start + AT_ONCE);
    for (const [answer, own] of await answersTo(files, encode, signal)) {
      own.forEach((file, index) => rows.push({ file, pattern: patternOf(answer, index) }));
    }
    progress.value = Math.min(folder.length, start + AT_ONCE);
  }
  return rows;
}

/** Answers to files; where one of them cannot be read, to each alone, and those that cannot are left out. */
async function answersTo(files, encode, signal) {
  const asStimuli = (own) => own.map((file) => ({ name: file.name, blob: file }));
  try {
    return [[unpacked(await encode(asStimuli(files), signal)), files]];
  } catch (error) {
    if (error.name === "AbortError" || error.name === "ServerBusyError") throw error;
    if (files.length === 1) return [];
    const each = [];
    for (const file of files) each.push(...(await answersTo([file], encode, signal)));
    return each;
  }
}

function patternOf(answer, index) {
  return Float32Array.from(answer.outputs.flatMap((output) => Array.from(rowOf(output, index).values)));
}

function show(place, found) {
  place.replaceChildren(...found.slice(0, MOST_SHOWN).map(({ file, r }) => {
    const url = URL.createObjectURL(file);
    return element("li", {}, element("img", { src: url, alt: file.name, onload: () => URL.revokeObjectURL(url) }), element("small", {}, `${file.name}, r ${number(r)}`));
  }));
}
