// The cortex: fsaverage5, inflated, turned by hand (niivue), and flat.

import { fromBase64, labelOf } from "./answers.js";
import { drawFigure } from "./figure.js";
import { compared, footerOf } from "./panels.js";
import { scaleOf, shown as number } from "./scales.js";

const NIIVUE = "vendor/niivue-0.69.0/niivue.umd.js";
const [PALE, DARK] = [219, 158]; // gyri, sulci, where nothing was predicted
/** Where a face looks at the eye it has the colour of the bar; only towards the edges it is darker. */
const SHADER = `#version 300 es
precision highp int;
precision highp float;
uniform float opacity;
in vec4 vClr;
in vec3 vN;
out vec4 color;
void main() {
  float facing = abs(normalize(vN).z);
  color = vec4(vClr.rgb * min(1.0, 0.6 + 0.6 * facing), opacity);
}`;
const SIDES = { lh: -1, rh: 1 };

/** Where one looks from: azimuth and elevation in degrees; the hemispheres that are not in the way; how large. */
export const VIEWS = {
  "left, lateral": { from: [90, 0], sides: ["lh"], scale: 1.55 },
  "left, medial": { from: [270, 0], sides: ["lh"], scale: 1.55 },
  "right, lateral": { from: [270, 0], sides: ["rh"], scale: 1.55 },
  "right, medial": { from: [90, 0], sides: ["rh"], scale: 1.55 },
  "from behind": { from: [0, 0], sides: ["lh", "rh"], scale: 1.55 },
  "from below": { from: [180, -90], sides: ["lh", "rh"], scale: 1.02 },
  "from above": { from: [0, 90], sides: ["lh", "rh"], scale: 1.02 },
};

let meshes = null;

/** Read the mesh, once. */
export async function readMeshes(source) {
  meshes ??= Object.fromEntries(
    Object.entries((await source.meshes()).hemispheres).map(([name, own]) => [name, {
      points: fromBase64(own.inflated_base64),
      faces: fromBase64(own.faces_base64, Uint32Array),
      sulci: own.sulci_base64 ? fromBase64(own.sulci_base64) : null,
      flat: own.flat_base64 ? fromBase64(own.flat_base64) : null,
      flatFaces: own.flat_faces_base64 ? fromBase64(own.flat_faces_base64, Uint32Array) : null,
    }]),
  );
  return meshes;
}

/** The panels of a cortex, values: left and then right hemisphere in one array. */
function panelsOfCortex(shown) {
  return compared(shown, ({ answer, index }) => {
    const { hemispheres } = answer.drawings.find((own) => own.kind === "cortex");
    return { values: Float32Array.from(Object.keys(SIDES).flatMap((name) => Array.from(rowOf(hemispheres[name], index, name)))) };
  });
}

function rowOf(hemisphere, index, name) {
  const n = meshes[name].points.length / 3;
  return hemisphere ? hemisphere.numbers.subarray(index * n, (index + 1) * n) : new Float32Array(n).fill(NaN);
}

function halves(values) {
  const n = meshes.lh.points.length / 3;
  return { lh: values.subarray(0, n), rh: values.subarray(n) };
}

/** What both drawings of a cortex need: panels, and the scale of all of them. */
export function prepareCortex(shown) {
  const output = shown.first.answer.outputs[0];
  const panels = panelsOfCortex(shown);
  panels.forEach((panel) => { panel.row.values = panel.row.values.map((value) => value * output.shown_factor); });
  const scale = scaleOf(panels.map((panel) => panel.row.values), labelOf(output), output.is_signed || panels.length > 1);
  return { panels, scale, output };
}

/** Draw the flat maps of both hemispheres. */
export function drawFlat(place, shown, drawing, { panels, scale, output }) {
  const nUnits = shown.first.answer.outputs.reduce((n, own) => n + own.numbers.length / own.shape[0], 0);
  return drawFigure(place, {
    panels: panels.map((panel) => ({
      title: panel.title,
      draw: (context, width, height) => drawFlatMaps(context, width, height, halves(panel.row.values), scale),
    })),
    ratio: 0.5,
    scale,
    largest: 560,
    footer: footerOf(shown.first.answer, nUnits, drawing.note),
    label: inWords(panels, output),
  });
}

let viewer = null;

/** The cortex that can be turned, on one canvas for the whole life of the page: browsers allow few of them. */
export class Cortex {
  /** Make it, or take the one that there is. Rejects where the browser has no WebGL 2. */
  static async get(place) {
    if (!viewer) {
      await loadNiivue();
      const frame = document.createElement("div");
      frame.className = "cortex";
      frame.append(document.createElement("canvas"));
      place.append(frame);
      viewer = await Cortex.on(frame.firstChild);
    }
    place.append(viewer.canvas.parentElement);
    return viewer;
  }

  static async on(canvas) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const drawer = new globalThis.niivue.Niivue({
      show3Dcrosshair: false, isOrientCube: false, isColorbar: false, loadingText: "", dragAndDropEnabled: false, logLevel: "error",
    });
    await drawer.attachToCanvas(canvas, false);
    drawer.setSliceType(drawer.sliceTypeRender);
    return new Cortex(drawer, canvas);
  }

  constructor(drawer, canvas) {
    this.drawer = drawer;
    this.canvas = canvas;
    this.drawn = {};
    const shader = drawer.setCustomMeshShader(SHADER, "response");
    for (const [name, mesh] of Object.entries(meshes)) {
      const own = new globalThis.niivue.NVMesh(apart(mesh.points, name), mesh.faces, name, greys(mesh), 1, true, drawer.gl);
      drawer.addMesh(own);
      drawer.setMeshShader(own.id, shader);
      this.drawn[name] = own;
    }
  }

  /** Colour it. */
  colour(values, scale, label) {
    const parts = halves(values);
    for (const [name, own] of Object.entries(this.drawn)) {
      own.rgba255 = coloured(meshes[name], parts[name], scale);
      own.updateMesh(this.drawer.gl);
    }
    this.drawer.opts.backColor = [...paper(), 1];
    this.canvas.setAttribute("aria-label", label);
  }

  /** Look from a side. */
  look(view) {
    const { from, sides, scale } = VIEWS[view];
    for (const [name, own] of Object.entries(this.drawn)) own.visible = sides.includes(name);
    this.drawer.resizeListener();
    this.drawer.setScale(scale);
    this.drawer.setRenderAzimuthElevation(...from);
  }

  /** The picture as it is now. */
  picture() {
    this.drawer.drawScene();
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [this.canvas.width, this.canvas.height];
    copy.getContext("2d").drawImage(this.canvas, 0, 0);
    return copy;
  }
}

function paper() {
  const colour = getComputedStyle(document.body).backgroundColor;
  return colour.match(/\d+/g).slice(0, 3).map((part) => Number(part) / 255);
}

let loading = null;

function loadNiivue() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(NIIVUE, document.baseURI);
    script.onload = resolve;
    script.onerror = () => reject(new Error("The part of the page that draws surfaces could not be loaded."));
    document.head.append(script);
  });
  return loading;
}

/** The hemispheres side by side: inflated, they would overlap. */
function apart(points, name) {
  const moved = points.slice();
  const side = SIDES[name];
  let inner = Infinity;
  for (let i = 0; i < moved.length; i += 3) inner = Math.min(inner, side * moved[i]);
  for (let i = 0; i < moved.length; i += 3) moved[i] += side * (3 - inner);
  return moved;
}

function greys(mesh) {
  return coloured(mesh, new Float32Array(mesh.points.length / 3).fill(NaN), null);
}

function coloured(mesh, values, scale) {
  const colours = new Uint8Array(values.length * 4).fill(255);
  values.forEach((value, i) => colours.set(Number.isFinite(value) ? scale.colour(value) : greyOf(mesh, i), i * 4));
  return colours;
}

function greyOf(mesh, vertex) {
  const depth = mesh.sulci ? Math.min(1, Math.max(-1, mesh.sulci[vertex] / 0.4)) : 0;
  const grey = Math.round(PALE + ((DARK - PALE) * (depth + 1)) / 2);
  return [grey, grey, grey];
}

function drawFlatMaps(context, width, height, parts, scale) {
  Object.keys(SIDES).forEach((name, column) => {
    const mesh = meshes[name];
    if (mesh.flat) drawTriangles(context, mesh, coloured(mesh, parts[name], scale), { left: column * (width / 2), width: width / 2, height });
  });
}

function drawTriangles(context, { flat, flatFaces }, colours, box) {
  const { at } = fitted(flat, flatFaces, box);
  context.lineWidth = 0.7;
  context.lineJoin = "round";
  for (let face = 0; face < flatFaces.length; face += 3) {
    const corners = flatFaces.subarray(face, face + 3);
    const colour = [0, 1, 2].map((k) => Math.round((colours[corners[0] * 4 + k] + colours[corners[1] * 4 + k] + colours[corners[2] * 4 + k]) / 3));
    context.beginPath();
    corners.forEach((vertex, k) => context[k ? "lineTo" : "moveTo"](...at(vertex)));
    context.closePath();
    context.fillStyle = `rgb(${colour})`;
    context.strokeStyle = context.fillStyle; // no seams between the faces
    context.fill();
    context.stroke();
  }
}

function fitted(flat, faces, { left, width, height }) {
  let [minX, maxX, minY, maxY] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const vertex of faces) {
    minX = Math.min(minX, flat[2 * vertex]);
    maxX = Math.max(maxX, flat[2 * vertex]);
    minY = Math.min(minY, flat[2 * vertex + 1]);
    maxY = Math.max(maxY, flat[2 * vertex + 1]);
  }
  const size = 0.97 * Math.min(width / (maxX - minX), height / (maxY - minY));
  const [x, y] = [left + width / 2 - (size * (minX + maxX)) / 2, height / 2 + (size * (minY + maxY)) / 2];
  return { at: (vertex) => [x + size * flat[2 * vertex], y - size * flat[2 * vertex + 1]] };
}

function inWords(panels, output) {
  const sentences = panels.map(({ title, row }) => {
    const means = Object.entries(halves(row.values)).map(([name, values]) => {
      const known = values.filter(Number.isFinite);
      return `${name === "lh" ? "left" : "right"} mean ${number(known.reduce((a, b) => a + b, 0) / known.length)}`;
    });
    return `${title}: ${means.join(", ")}`;
  });
  return `Flat maps of the cortex, ${labelOf(output)}. ${sentences.join(". ")}.`;
}
