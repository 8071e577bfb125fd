// What is drawn beside each other: one stimulus, or two and their difference.

import { minus, rowOf } from "./answers.js";

/**
 * The panels of an output.
 *
 * @param {object} shown  {first: {stimulus, answer, index}, second: the same, or null}
 * @param {string} name  of the output
 * @returns {Array} [{title, row: {axes, shape, values}, stimulus, isDifference}]
 */
export function panelsOf(shown, name) {
  return compared(shown, (one) => rowOf(outputOf(one.answer, name), one.index));
}

/** The same with other values: those of `read`, which returns {values, ...}. */
export function compared({ first, second }, read) {
  const panel = (one) => ({ title: one.stimulus.name, stimulus: one.stimulus, row: read(one), isDifference: false });
  if (!second) return [panel(first)];
  const [one, other] = [panel(first), panel(second)];
  const row = { ...one.row, values: minus(one.row.values, other.row.values) };
  return [one, other, { title: `${one.title} \u2212 ${other.title}`, stimulus: null, row, isDifference: true }];
}

/** An output of an answer, by its name. */
export function outputOf(answer, name) {
  return answer.outputs.find((output) => output.name === name);
}

/** The line below a figure: the model, its subject, how many units. */
export function footerOf(answer, nUnits, note = "") {
  const { model_id: id, subject } = answer.model;
  const parts = [id, subject === undefined || subject === null ? "" : `subject ${subject}`, `n = ${nUnits}`, note];
  return parts.filter(Boolean).join(" \u00b7 ");
}
