// Where models and answers come from: the server that the page comes from, or the files of an explorer beside it.

/** What the server says is wrong, with its sentence. */
export class ServerRefusal extends Error {
  constructor(type, message, retryAfter) {
    super(message);
    this.name = type;
    this.retryAfter = retryAfter;
  }
}

const TOKEN = "berg-token";

/** The server: every call is one request to /api. */
export class Server {
  isStatic = false;

  models() {
    return this.get("models");
  }

  model(id) {
    return this.get(`models/${encodeURIComponent(id)}`);
  }

  accuracy(id, parameters) {
    return this.get(`models/${encodeURIComponent(id)}/accuracy?${new URLSearchParams(parameters)}`);
  }

  meshes() {
    return this.get("meshes/fsaverage5");
  }

  /** Responses to stimuli ({name, blob}), as an Answer; with format "nc" or "npz" as a Blob. */
  async encode(request, stimuli, signal) {
    const form = new FormData();
    form.append("request", JSON.stringify({ numbers: "base64", ...request }));
    for (const stimulus of stimuli) form.append("stimulus", stimulus.blob, stimulus.name);
    const response = await this.fetch("encode", { method: "POST", body: form, signal });
    return (request.format ?? "json") === "json" ? response.json() : response.blob();
  }

  async get(path) {
    return (await this.fetch(path)).json();
  }

  async fetch(path, options = {}) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(new URL(`api/${path}`, document.baseURI), { ...options, headers });
    if (response.ok) return response;
    const error = (await response.json().catch(() => null))?.error ?? { type: "ServerError", message: response.statusText };
    throw new ServerRefusal(error.type, error.message, Number(response.headers.get("Retry-After")) || null);
  }

  setToken(token) {
    sessionStorage.setItem(TOKEN, token);
  }
}

/** Files that berg explorer wrote: chosen models, chosen stimuli, all answers. */
export class Explorer {
  isStatic = true;

  models() {
    return read("explorer/models.json");
  }

  async model(id) {
    return (await read(`explorer/models/${encodeURIComponent(id)}/description.json`)).description;
  }

  async accuracy(id) {
    return (await read(`explorer/models/${encodeURIComponent(id)}/description.json`)).accuracy;
  }

  meshes() {
    return read("explorer/meshes.json");
  }

  /** The stimuli that there are answers to: [{name, kind, file}]. */
  async stimuli() {
    return (await read("explorer/stimuli.json")).stimuli;
  }

  /** The answer to one stimulus. */
  encode(request, [stimulus]) {
    return read(`explorer/models/${encodeURIComponent(request.model)}/${stimulus.number}.json`);
  }
}

/** The source that the page was made for. */
export function source() {
  return document.documentElement.dataset.source === "files" ? new Explorer() : new Server();
}

async function read(path) {
  const response = await fetch(new URL(path, document.baseURI));
  if (!response.ok) throw new ServerRefusal("FileNotFound", `${path} is missing from this explorer. Write it anew.`);
  return response.json();
}
