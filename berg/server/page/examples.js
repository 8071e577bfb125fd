// Stimuli that the page makes itself, so that the first answer is one press away. Their names may stand in a link.

import { wav } from "./sound.js";

const SIDE = 400;

/** The examples of a kind of stimulus: [{name, make() -> Promise<Blob>}]. */
export function examplesOf(kind, rate) {
  const found = { image: PICTURES, sound: soundsAt(rate ?? 44100), text: SENTENCES }[kind] ?? {};
  return Object.entries(found).map(([name, make]) => ({ name, make }));
}

const PICTURES = {
  "checks-left.png": () => picture((context) => checks(context, (x) => x < SIDE / 2 - 10)),
  "checks-right.png": () => picture((context) => checks(context, (x) => x >= SIDE / 2 + 10)),
  "ring.png": () => picture((context) => checks(context, (x, y) => Math.abs(Math.hypot(x - SIDE / 2, y - SIDE / 2) - 110) < 44)),
  "grating.png": () => picture(grating),
  "grey.png": () => picture(() => undefined),
};

function soundsAt(rate) {
  const sound = (seconds, value) => async () => wav(Float32Array.from({ length: Math.round(seconds * rate) }, (_, i) => value(i / rate)), rate);
  return {
    "clicks.wav": sound(1, (t) => (t % 0.1 < 0.004 ? 0.15 * Math.sin(2 * Math.PI * 3000 * t) : 0)),
    "tone.wav": sound(1, (t) => 0.05 * Math.sin(2 * Math.PI * 4000 * t) * (t > 0.2 && t < 0.8 ? 1 : 0)),
    "slow-beats.wav": sound(1, (t) => 0.05 * Math.sin(2 * Math.PI * 4000 * t) * Math.sin(Math.PI * 5 * t) ** 2),
  };
}

const SENTENCES = {
  "people.txt": async () => new Blob(["The old teacher greeted her students."], { type: "text/plain" }),
  "places.txt": async () => new Blob(["Rain fell on the empty harbour."], { type: "text/plain" }),
};

function picture(draw) {
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(128, 128, 128)";
  context.fillRect(0, 0, SIDE, SIDE);
  draw(context);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function checks(context, isIn) {
  const cell = 20;
  for (let y = 0; y < SIDE; y += cell) {
    for (let x = 0; x < SIDE; x += cell) {
      if (!isIn(x + cell / 2, y + cell / 2)) continue;
      context.fillStyle = (x + y) / cell % 2 ? "white" : "black";
      context.fillRect(x, y, cell, cell);
    }
  }
}

function grating(context) {
  for (let x = 0; x < SIDE; x += 1) {
    const grey = Math.round(127.5 + 127.5 * Math.sin((2 * Math.PI * x) / 40));
    context.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
    context.fillRect(x, 0, 1, SIDE);
  }
}
