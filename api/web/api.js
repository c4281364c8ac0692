/* Requests to the service. The key goes as a header, and every refusal is a problem of RFC 9457. */

const STORED = "provenn.key";

/** What the service, or the way to it, says instead of an answer. status: 0 where there was none. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the service answered ${status}`);
    this.status = status;
    this.title = body.title || "The service does not answer";
  }
}

export function key() {
  return sessionStorage.getItem(STORED) ?? "";
}

/** Keeps the key for as long as this tab is open; nothing forgets it. */
export function useKey(text) {
  if (text) sessionStorage.setItem(STORED, text);
  else sessionStorage.removeItem(STORED);
}

function authorization() {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}

/** What a response, or its text, says is wrong; who has no valid key is asked for one. */
function refusal(status, text) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    body = { detail: text.slice(0, 500) };
  }
  if (status === 401) document.dispatchEvent(new CustomEvent("provenn:key", { detail: body.detail }));
  return new Problem(status, body);
}

/** A response that is a success; body: JSON, or a form.  Throws: Problem; AbortError. */
export async function ask(method, path, { body, headers, signal } = {}) {
  const plain = body === undefined || body instanceof FormData;
  const sent = plain ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: { ...authorization(), ...sent, ...headers },
      body: plain ? body : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "the service cannot be reached" });
  }
  if (!response.ok) throw refusal(response.status, await response.text());
  return response;
}

export async function get(path, options) {
  return (await ask("GET", path, options)).json();
}

export async function post(path, body) {
  return (await ask("POST", path, { body })).json();
}

/** Uploads inputs with their classes. */
export function uploadData(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  return post("/v1/datasets", form);
}

/** Uploads a network. tell(share): how much has been sent, 1 once the service reads it. */
export function upload(file, architecture, tell) {
  const form = new FormData();
  form.append("file", file, file.name);
  if (architecture) form.append("architecture", architecture);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/models");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && tell(event.loaded / event.total));
    request.addEventListener("error", () => reject(new Problem(0, { detail: "the upload broke off" })));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText));
    });
    request.send(form);
  });
}

/** Downloads into a file of the user's, which a plain link could not: it sends no header. */
export async function save(path, name) {
  const blob = await (await ask("GET", path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const models = new Map();

/** A network's description, asked for once. */
export function model(id) {
  if (!models.has(id)) {
    const asked = get(`/v1/models/${id}`);
    asked.catch(() => models.delete(id));
    models.set(id, asked);
  }
  return models.get(id);
}

let methods;

/** The methods that a job may name. */
export function backends() {
  methods ??= get("/v1/backends");
  methods.catch(() => (methods = undefined));
  return methods;
}
