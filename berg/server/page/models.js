// Choosing a model: search, and what one should know of it before the first prediction.

import { byId, element } from "./elements.js";
import { shown as number } from "./scales.js";

/** Show the models that match, one of them chosen; `choose(id)` is called for another. */
export function listModels(models, chosen, choose) {
  fillOptions(byId("kind"), models.map((model) => model.kind));
  fillOptions(byId("modality"), models.map((model) => model.modality));
  const matching = models.filter(matches);
  const rows = matching.map((model) => row(model, model.id === chosen, choose));
  const none = element("p", { className: "hint" }, "No model matches. Take fewer words, or those that are not here.");
  byId("models").replaceChildren(element("legend", {}, `${matching.length} of ${models.length} models`), ...(rows.length ? rows : [none]));
}

/** Show what is known of a model. */
export function describe(model, accuracy) {
  const facts = [
    ["Recording", `${model.species}, ${model.modality}`],
    ["Takes", model.stimuli],
    ["Fitted to", model.training_dataset],
    ["Accuracy", accuracyOf(model, accuracy)],
    ["Limits", model.limitations || "none stated"],
    ["Licence", model.licence || "not stated"],
    ["Files", model.state],
  ];
  byId("about").replaceChildren(
    element("h3", {}, model.id),
    element("p", {}, firstSentences(model.description)),
    element("dl", {}, facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    ...(accuracy?.regions?.length ? [regionTable(accuracy)] : []),
    element("details", {}, element("summary", {}, "Cite"), element("p", {}, model.citation || "No citation is stated.")),
  );
}

function matches(model) {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [model.id, model.species, model.modality, model.stimuli, model.architecture, model.training_dataset, ...model.regions].join(" ").toLowerCase();
  const [kind, modality] = [byId("kind").value, byId("modality").value];
  return words.every((word) => text.includes(word)) && (!kind || model.kind === kind) && (!modality || model.modality === modality) && (model.is_usable || !byId("usable").checked);
}

function row(model, isChosen, choose) {
  const radio = element("input", { type: "radio", name: "model", value: model.id, checked: isChosen, onchange: () => choose(model.id) });
  const best = model.accuracy[0];
  const accuracy = best ? `${best.name} ${typeof best.value === "number" ? number(best.value) : best.value}` : "accuracy not stated";
  return element("label", { className: model.is_usable ? "model" : "model away" }, radio,
    element("span", {}, element("strong", {}, model.id), element("br"), element("small", {}, `${model.species} \u00b7 ${model.stimuli} \u00b7 ${accuracy} \u00b7 ${model.state}`)));
}

function accuracyOf(model, accuracy) {
  if (accuracy?.median !== null && accuracy?.median !== undefined) {
    return `${accuracy.quantity}: median ${number(accuracy.median)} over ${accuracy.n_units} units`;
  }
  return model.accuracy.map((own) => `${own.name} ${typeof own.value === "number" ? number(own.value) : own.value}`).join("; ") || "not stated";
}

function regionTable(accuracy) {
  const rows = accuracy.regions.map((region) => element("tr", {}, ...[region.name, number(region.median ?? NaN), String(region.n_units)].map((cell) => element("td", {}, cell))));
  return element("details", {}, element("summary", {}, "Accuracy of each region"),
    element("table", {}, element("tr", {}, ...["Region", accuracy.quantity, "Units"].map((cell) => element("th", {}, cell))), ...rows));
}

function fillOptions(select, values) {
  if (select.options.length > 1) return;
  const known = [...new Set(values.filter(Boolean))].sort();
  select.append(...known.map((value) => element("option", { value }, value)));
}

function firstSentences(words) {
  return words.length > 320 ? `${words.slice(0, words.indexOf(". ", 200) + 1 || 320)}` : words;
}
