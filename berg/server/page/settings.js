// The settings of a model: its parameters, such as the subject, and the units that are selected.

import { byId, element } from "./elements.js";

const MOST_OPTIONS = 400;

/** Show the settings of a model; `changed({parameters, selection})` is called with what is set. */
export function showSettings(model, given, isFixed, changed) {
  const state = { parameters: { ...defaults(model.parameters), ...given.parameters }, selection: { ...given.selection } };
  const tell = () => changed(state);
  byId("settings").replaceChildren(
    ...(isFixed ? [] : controls(model.parameters, state.parameters, tell)),
    ...(isFixed ? [] : controls(model.selection, state.selection, tell)),
  );
  return state;
}

/** Settings that have to be given and have a first allowed value. */
function defaults(settings) {
  const needed = Object.entries(settings).filter(([, setting]) => setting.required && setting.allowed?.length);
  return Object.fromEntries(needed.map(([name, setting]) => [name, setting.allowed[0]]));
}

function controls(settings, state, tell) {
  return Object.entries(settings).map(([name, setting]) => control(name, setting, state, tell)).filter(Boolean);
}

/** A choice of one, a choice of several, or nothing: masks of units are for programs. */
function control(name, setting, state, tell) {
  const allowed = setting.allowed;
  if (!(allowed?.length > 1) || allowed.length > MOST_OPTIONS) return null;
  const isList = setting.type.includes("list");
  const chosen = [state[name] ?? []].flat().map(String);
  const options = allowed.map((value) => element("option", { value: String(value), selected: chosen.includes(String(value)) }, String(value)));
  const read = (select) => allowed.filter((_, i) => select.options[i + (isList ? 0 : first.length)].selected);
  const first = isList || setting.required ? [] : [element("option", { value: "", selected: !chosen.length }, setting.default === null ? "all" : `as usual (${setting.default})`)];
  const select = element("select", {
    multiple: isList,
    title: setting.description,
    onchange: () => {
      const values = read(select);
      if (values.length) state[name] = isList ? values : values[0];
      else delete state[name];
      tell();
    },
  }, ...first, ...options);
  const hint = isList ? element("small", {}, " several with Ctrl or \u2318; none: all") : null;
  return element("div", { className: "setting" }, element("label", {}, titled(name), hint, element("br"), select));
}

function titled(name) {
  return { roi: "Regions" }[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");
}
