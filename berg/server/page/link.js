// The state in the link: model, settings, view. Stimuli by the name of an example alone, never what was uploaded.

/** What the link says: {model, parameters, selection, first, second, time, view}. */
export function readLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = { parameters: {}, selection: {} };
  for (const [name, value] of given) {
    if (name.startsWith("p.")) state.parameters[name.slice(2)] = parsed(value);
    else if (name.startsWith("s.")) state.selection[name.slice(2)] = parsed(value);
    else state[name] = value;
  }
  return state;
}

/** Write a state into the link, without a new entry in the history. */
export function writeLink({ parameters, selection, ...rest }) {
  const link = new URLSearchParams();
  for (const [name, value] of Object.entries(rest)) if (value) link.set(name, value);
  for (const [name, value] of Object.entries(parameters)) link.set(`p.${name}`, JSON.stringify(value));
  for (const [name, value] of Object.entries(selection)) link.set(`s.${name}`, JSON.stringify(value));
  history.replaceState(null, "", `#${link}`);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
