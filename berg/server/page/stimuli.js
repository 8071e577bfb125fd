// Giving stimuli: drop, paste, choose, record, type, or take an example. None leaves the page but for the model.

import { byId, element, say } from "./elements.js";
import { examplesOf } from "./examples.js";
import { record, samplesOf } from "./sound.js";

const WORDS = {
  image: { many: "pictures", icon: "\u25a3" },
  sound: { many: "sounds", icon: "\u266a" },
  video: { many: "videos", icon: "\u25b6" },
  text: { many: "texts", icon: "\u00b6" },
};

/** Where stimuli are given; `take(files)` gets [{name, blob, isExample}]. */
export function showDrop(input, take) {
  const kind = input?.kind ?? "image";
  const { many } = WORDS[kind];
  const files = element("input", {
    type: "file", multiple: true, hidden: true, accept: (input?.endings ?? []).join(","),
    onchange: () => { take([...files.files].map(fromFile)); files.value = ""; },
  });
  byId("drop").replaceChildren(
    element("p", {}, kind === "text" ? "Type a sentence, or drop text files here." : `Drop ${many} here, or paste one.`),
    ...(kind === "text" ? [textBox(take)] : []),
    element("div", { className: "row" },
      element("button", { type: "button", className: "main", onclick: () => files.click() }, `Choose ${many}\u2026`),
      kind === "sound" ? recordButton(input, take) : null, files),
    element("div", { className: "row" }, element("small", {}, "Or an example: "),
      ...examplesOf(kind, input?.sampling_rate).map((example) => exampleButton(example, take))),
  );
}

/** The stimuli that were precomputed, to be chosen from. */
export function showChoice(stimuli, take) {
  byId("drop").replaceChildren(
    element("p", {}, "Choose a stimulus whose responses were computed:"),
    element("div", { className: "row" }, ...stimuli.map((stimulus) =>
      element("button", { type: "button", onclick: () => take([stimulus]) }, stimulus.name))),
  );
}

/** Take files that are dropped or pasted anywhere on the page. */
export function listenForFiles(take) {
  const drop = byId("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files].map(fromFile));
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) take(files.map(fromFile));
  });
}

/** Show the stimuli; `roles` says which are A and B, `act(name, stimulus)` what was pressed. */
export function listStimuli(stimuli, roles, act) {
  byId("stimuli").replaceChildren(...stimuli.map((stimulus) => {
    const role = (name, key, hint) => element("button", {
      type: "button", className: key, title: hint, "aria-label": `${hint}: ${stimulus.name}`,
      "aria-pressed": String(roles[key] === stimulus), onclick: () => act(key, stimulus),
    }, name);
    return element("li", {},
      stimulus.url && stimulus.kind === "image" ? element("img", { src: stimulus.url, alt: "" }) : element("span", { className: "icon", "aria-hidden": "true" }, WORDS[stimulus.kind]?.icon ?? "?"),
      element("span", { className: "name" }, stimulus.name, stimulus.error ? element("small", { className: "warnings" }, ` ${stimulus.error}`) : null),
      element("span", { className: "role" }, role("A", "first", "Show"), role("B", "second", "Compare with"),
        element("button", { type: "button", "aria-label": `Take away ${stimulus.name}`, onclick: () => act("remove", stimulus) }, "\u00d7")));
  }));
}

/** What is drawn of a stimulus beside its responses: a picture, or the samples of a sound. */
export async function preview(stimulus) {
  stimulus.url ??= stimulus.blob ? URL.createObjectURL(stimulus.blob) : null;
  try {
    if (stimulus.kind === "image") stimulus.picture = await pictureOf(stimulus.url);
    if (stimulus.kind === "sound" && stimulus.blob) stimulus.sound = await samplesOf(stimulus.blob);
  } catch {
    // Shown without a preview: the server says whether it can be read.
  }
  return stimulus;
}

function fromFile(file) {
  return { name: file.name, blob: file, isExample: false };
}

function pictureOf(url) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = reject;
    picture.src = url;
  });
}

function exampleButton({ name, make }, take) {
  return element("button", { type: "button", onclick: async () => take([{ name, blob: await make(), isExample: true }]) }, name.replace(/\.\w+$/, ""));
}

function textBox(take) {
  const box = element("textarea", { rows: 2, "aria-label": "A sentence" });
  let number = 0;
  const add = () => {
    const words = box.value.trim();
    if (!words) return;
    number += 1;
    take([{ name: `sentence-${number}.txt`, blob: new Blob([words], { type: "text/plain" }), isExample: false }]);
    box.value = "";
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); add(); }
  });
  return element("div", {}, box, element("button", { type: "button", onclick: add }, "Add the sentence"));
}

function recordButton(input, take) {
  let stop = null;
  let number = 0;
  const button = element("button", {
    type: "button",
    onclick: async () => {
      try {
        if (!stop) {
          stop = await record(input.sampling_rate ?? 44100);
          button.textContent = "Stop the recording";
          say("Recording \u2026");
        } else {
          const blob = await stop();
          stop = null;
          number += 1;
          button.textContent = "Record";
          take([{ name: `recording-${number}.wav`, blob, isExample: false }]);
        }
      } catch (error) {
        stop = null;
        button.textContent = "Record";
        say(`No sound could be recorded: ${error.message}`, true);
      }
    },
  }, "Record");
  return button;
}
