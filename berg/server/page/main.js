// The page: a model, stimuli, responses. What is chosen is in the link; what is uploaded never is.

import { unpacked } from "./answers.js";
import { showDownloads } from "./downloads.js";
import { byId, element, say } from "./elements.js";
import { examplesOf } from "./examples.js";
import { drawFigures } from "./figures.js";
import { readLink, writeLink } from "./link.js";
import { describe, listModels } from "./models.js";
import { showSettings } from "./settings.js";
import { showSimilar } from "./similar.js";
import { source } from "./source.js";
import { listenForFiles, listStimuli, preview, showChoice, showDrop } from "./stimuli.js";

const RETRIES = 5; // of a request that a busy server has sent away
const from = source();
const state = {
  models: [], limits: null, model: null, settings: { parameters: {}, selection: {} }, view: {},
  stimuli: [], roles: { first: null, second: null }, request: 0, drawing: null, isStale: false,
};

start();

async function start() {
  listenForFiles((files) => take(files));
  for (const id of ["search", "kind", "modality", "usable"]) byId(id).addEventListener("input", showModels);
  byId("token").addEventListener("submit", (event) => {
    event.preventDefault();
    from.setToken(new FormData(event.target).get("token"));
    byId("token").hidden = true;
    open();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  addEventListener("resize", debounced(show));
  await open();
}

async function open() {
  const { token } = readLink();
  if (token && !from.isStatic) from.setToken(token); // which berg serve puts behind its address; it does not stay there
  try {
    const list = await from.models();
    Object.assign(state, { models: list.models, limits: list.limits });
    byId("version").textContent = `Version ${list.berg_version}.`;
    const link = readLink();
    state.view = { time: link.time, view: link.view };
    const usable = list.models.filter((model) => model.is_usable);
    const wanted = list.models.find((model) => model.id === link.model) ?? usable.find((model) => model.kind === "image") ?? usable[0] ?? list.models[0];
    if (!wanted) {
      say("No model is here. Get one with:  berg download", true);
      return;
    }
    await choose(wanted.id, link);
  } catch (error) {
    failed(error);
  }
}

function showModels() {
  listModels(state.models, state.model?.id, (id) => choose(id, { parameters: {}, selection: {} }).catch(failed));
}

async function choose(id, link) {
  const was = state.model?.input?.kind;
  state.model = await from.model(id);
  if (was !== state.model.input?.kind) Object.assign(state, { stimuli: [], roles: { first: null, second: null } });
  state.settings = showSettings(state.model, link, from.isStatic, () => { forget(); tellAccuracy(); encode(); });
  showModels();
  describe(state.model, null);
  tellAccuracy();
  if (from.isStatic) await offerComputed();
  else showDrop(state.model.input, take);
  forget();
  await takeExamples(link);
  encode();
}

async function tellAccuracy() {
  const { id } = state.model;
  const { subject } = state.settings.parameters;
  const accuracy = await from.accuracy(id, subject === undefined ? {} : { subject }).catch(() => null);
  if (state.model.id === id) describe(state.model, accuracy);
}

async function offerComputed() {
  const stimuli = (await from.stimuli()).filter((stimulus) => stimulus.kind === state.model.input?.kind);
  showChoice(stimuli, take);
  state.examples = stimuli.map((stimulus) => ({ ...stimulus, isExample: true, url: new URL(stimulus.file, document.baseURI) }));
}

/** Take the examples that the link names; the first one of an explorer by itself. */
async function takeExamples(link) {
  const known = from.isStatic ? state.examples : examplesOf(state.model.input?.kind, state.model.input?.sampling_rate);
  const wanted = [link.first ?? (from.isStatic ? known[0]?.name : undefined), link.second].filter(Boolean);
  for (const name of wanted) {
    const found = known.find((example) => example.name === name);
    if (found && !state.stimuli.some((own) => own.name === name)) {
      const stimulus = found.make ? { name, blob: await found.make(), isExample: true } : found;
      await add(stimulus, name === link.second ? "second" : "first");
    }
  }
}

async function take(given) {
  const most = state.limits?.stimuli ?? given.length;
  if (given.length > most) say(`${most} of ${given.length} are taken; more at once is a job: berg.remote(...) in Python.`, true);
  for (const one of given.slice(0, most)) await add(from.isStatic ? state.examples.find((own) => own.name === one.name) : one, "first");
  encode();
}

async function add(stimulus, role) {
  const same = state.stimuli.filter((own) => own.name === stimulus.name);
  const own = same.length && from.isStatic ? same[0] : await preview({ ...stimulus, kind: state.model.input?.kind, answer: null });
  if (!state.stimuli.includes(own)) state.stimuli.unshift(own);
  state.roles[role] = own;
}

function act(name, stimulus) {
  if (name === "remove") {
    state.stimuli = state.stimuli.filter((own) => own !== stimulus);
    for (const role of ["first", "second"]) if (state.roles[role] === stimulus) state.roles[role] = null;
    if (stimulus.blob) URL.revokeObjectURL(stimulus.url);
    state.roles.first ??= state.stimuli.find((own) => own !== state.roles.second) ?? null;
  } else {
    state.roles[name] = state.roles[name] === stimulus && name === "second" ? null : stimulus;
  }
  if (state.roles.first === state.roles.second) state.roles.second = null;
  show();
}

/** Forget all answers: they are of other settings. */
function forget() {
  state.stimuli.forEach((stimulus) => Object.assign(stimulus, { answer: null, error: null }));
}

/** Ask for the responses to all stimuli that have none. */
async function encode() {
  const number = (state.request += 1);
  const waiting = state.stimuli.filter((stimulus) => !stimulus.answer);
  const began = performance.now();
  if (waiting.length) say(`${state.model.id}: computing \u2026`);
  listStimuli(state.stimuli, state.roles, act);
  for (const stimulus of waiting) {
    try {
      const answer = unpacked(await asked([stimulus], { coordinates: "drawn" }));
      if (number !== state.request) return; // other settings, or more stimuli, have been given since
      Object.assign(stimulus, { answer, error: null });
    } catch (error) {
      if (number !== state.request) return;
      stimulus.error = error.message;
      failed(error);
    }
    await show();
  }
  if (waiting.some((stimulus) => stimulus.answer)) say(`Drawn after ${((performance.now() - began) / 1000).toFixed(2)} s.`);
  await show();
}

function requestOf(more = {}) {
  const { parameters, selection } = state.settings;
  return { model: state.model.id, parameters, selection: Object.keys(selection).length ? selection : null, ...more };
}

/** The answer to stimuli; a busy server is asked again when it says. */
async function asked(stimuli, more = {}, signal = undefined) {
  for (let turn = 0; ; turn += 1) {
    try {
      return await from.encode(requestOf(more), stimuli, signal);
    } catch (error) {
      if (!error.retryAfter || turn >= RETRIES) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 1000 * error.retryAfter); });
    }
  }
}

/** Draw what is chosen; what is chosen meanwhile is drawn after it, once. */
async function show() {
  listStimuli(state.stimuli, state.roles, act);
  remember();
  state.isStale = true;
  state.drawing ??= (async () => {
    while (state.isStale) {
      state.isStale = false;
      await drawResponses();
    }
    state.drawing = null;
  })();
  await state.drawing;
}

async function drawResponses() {
  const { first, second } = state.roles;
  if (!first?.answer) {
    if (!first) byId("figures").replaceChildren(element("p", { className: "hint" }, "Give a stimulus: the answer is drawn here."));
    return;
  }
  const shown = { first: asShown(first), second: second?.answer ? asShown(second) : null };
  byId("warnings").replaceChildren(...first.answer.warnings.map((words) => element("li", {}, words)));
  try {
    const figures = await drawFigures(byId("figures"), shown, state.view, from, remember);
    const both = [first, ...(shown.second ? [second] : [])];
    showDownloads(shown, figures, {
      netcdf: from.isStatic ? null : () => asked(both, { format: "nc" }),
      labelled: async () => (from.isStatic ? shown : labelled(both)),
    });
    if (!from.isStatic && first.kind === "image") {
      showSimilar(shown.first, state.model.input.endings, (stimuli, signal) => asked(stimuli, { drawings: false, coordinates: "drawn" }, signal));
    }
  } catch (error) {
    failed(error);
  }
}

/** The same with all that is known of each unit. */
async function labelled(stimuli) {
  const answer = unpacked(await asked(stimuli, { drawings: false }));
  const [first, second] = stimuli.map((stimulus, index) => ({ stimulus, answer, index }));
  return { first, second: second ?? null };
}

function asShown(stimulus) {
  return { stimulus, answer: stimulus.answer, index: 0 };
}

/** Put into the link what is chosen. */
function remember() {
  const named = (stimulus) => (stimulus?.isExample ? stimulus.name : "");
  const { first, second } = state.roles;
  const { parameters, selection } = from.isStatic ? { parameters: {}, selection: {} } : state.settings;
  writeLink({ model: state.model?.id, first: named(first), second: named(second), ...state.view, parameters, selection });
}

function failed(error) {
  if (error.name === "TokenError") {
    byId("token").hidden = false;
    byId("token").querySelector("input").focus();
  }
  say(error.message, true);
}

function debounced(act) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, 200);
  };
}
