// The server's public API, and the key it is used with. Everything here can be asked with `curl` too.

const BASE = new URL(".", document.baseURI);
const KEY = "key";
// Time limits. A read that takes longer is given up and tried again; a change has more time, as it is not repeated.
const READ_MS = 15_000;
const CHANGE_MS = 30_000;

export const address = BASE.href.replace(/\/$/, "");

/** An answer that is not a success. `status` 0: there was no answer. */
export class Refusal extends Error {
  constructor(status, code, sentence, body = {}, retryAfter = 0) {
    super(sentence);
    this.status = status;
    this.code = code;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/** The key of this tab, and the listeners that are called when it changes. */
export const session = {
  key: sessionStorage.getItem(KEY) ?? "",
  /** The sentence with which the server refused the last key. */
  refused: "",
  listeners: new Set(),
  use(key) {
    this.key = key;
    this.refused = "";
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
    this.tell();
  },
  refuse(key, sentence) {
    if (key !== this.key) return;
    this.use("");
    this.refused = sentence;
    this.tell();
  },
  tell() {
    for (const listener of this.listeners) listener();
  },
};

/** How many milliseconds the server's clock is ahead of the browser's. */
let ahead = 0;
export const serverNow = () => Date.now() + ahead;

export function path(...segments) {
  return segments.map(segment).join("/");
}

/** Encodes one segment of a path. Browsers resolve `.` and `..` in any encoding: see isReachable. */
function segment(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());
}

/** Whether a browser can ask for this name: it drops the segments `.` and `..` from a URL in any encoding. */
export const isReachable = (name) => name !== "." && name !== "..";

export function url(route, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  // As it stands: `new URL()` would drop `.` and `..`, which curl sends.
  return BASE.href + route + (text ? `?${text}` : "");
}

/** The header with the key. fetch() sends one byte for each character of a header, and the server reads UTF-8. */
export const keyHeader = (key) => ({ "x-api-key": String.fromCharCode(...new TextEncoder().encode(key)) });

/** Sends a request. Returns the response, whatever its status; throws a {@link Refusal} if there is none. */
export async function send(method, target, { headers = {}, body, signal } = {}) {
  const limit = AbortSignal.timeout(method === "GET" ? READ_MS : CHANGE_MS);
  try {
    return await fetch(target, {
      method,
      headers: { ...keyHeader(session.key), ...headers },
      body,
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw new Refusal(0, "given_up", "Given up.");
    const late = error.name === "TimeoutError";
    throw new Refusal(
      0,
      late ? "late" : "unreachable",
      late ? "The server did not answer in time." : "The server cannot be reached.",
    );
  }
}

/** Makes a response a {@link Refusal}. If the server does not know the key, the session ends. */
export async function refusal(response, key) {
  const body = await response.json().catch(() => ({}));
  const sentence = body.error ?? `The server answered ${response.status}.`;
  const refused = new Refusal(
    response.status,
    body.code ?? `status_${response.status}`,
    sentence,
    body,
    Number(response.headers.get("retry-after")) || 0,
  );
  if (response.status === 401 && refused.code !== "key_insufficient" && !(await isStillKnown(refused, key))) {
    session.refuse(key, sentence);
  }
  return refused;
}

/** Whether the key is still valid. A name outside its prefixes is refused like an unknown key; GET /status is not. */
async function isStillKnown(refused, key) {
  if (refused.code === "key_missing") return false;
  try {
    const response = await fetch(url("status"), {
      headers: keyHeader(key),
      cache: "no-store",
      credentials: "omit",
    });
    return response.status !== 401;
  } catch {
    return true;
  }
}

async function json(method, target, options) {
  const key = session.key;
  const response = await send(method, target, options);
  if (!response.ok) throw await refusal(response, key);
  return response.status === 204 ? null : response.json();
}

const change = (method, route, body) =>
  json(method, url(route), { body: JSON.stringify(body), headers: { "content-type": "application/json" } });

/** When a lease ends, on performance.now(), which nobody can set; `null`: it does not expire. */
function deadline(lease, now) {
  if (typeof lease.expiresInMs === "number") return now + lease.expiresInMs;
  return lease.expiresAt ? now + Date.parse(lease.expiresAt) - serverNow() : null;
}

function described(resource) {
  const now = performance.now();
  const holders = resource.holders ?? (resource.holder ? [resource.holder] : []);
  return {
    ...resource,
    holders: holders.map((lease) => ({ mode: "exclusive", ...lease, deadline: deadline(lease, now) })),
    queue: resource.queue ?? [],
    state: holders.length ? "held" : resource.locked ? "reserved" : "free",
  };
}

export async function status() {
  const told = await json("GET", url("status"));
  if (told.now) ahead = Date.parse(told.now) - Date.now();
  return told;
}

export async function list(query, signal) {
  const page = await json("GET", url("resource", query), { signal });
  return { ...page, resources: page.resources.map(described) };
}

export const describe = async (name, queue, signal) =>
  described(await json("GET", url(path("resource", name), { queue }), { signal }));

export const history = (name, signal) => json("GET", url(path("history", name)), { signal });

export const documents = (name, signal) =>
  json("GET", url(path("resource", name), { selectors: 1000, queue: 0 }), { signal });

/** The document's text, and the entity tag that a change of it has to send. */
export async function read(name, selector) {
  const key = session.key;
  const response = await send("GET", url(path("resource", name, selector), { lock: 0, raw: 1 }));
  if (!response.ok) throw await refusal(response, key);
  return { text: await response.text(), tag: response.headers.get("etag") };
}

/** Writes a document if it still has this entity tag. Returns its new tag. */
export async function write(name, selector, text, tag) {
  const key = session.key;
  const response = await send("PUT", url(path("resource", name, selector)), {
    body: text,
    headers: { "content-type": "application/json", "if-match": tag },
  });
  if (!response.ok) throw await refusal(response, key);
  return response.headers.get("etag");
}

/** Ends the lease with this token, or every lease if no token is given. */
export const forceOff = (name, reason, fencingToken) =>
  change("POST", path("resource", name, "force-unlock"), { reason, fencingToken });

export const removeWaiter = (name, reason, waiter) =>
  change("POST", path("resource", name, "force-unlock"), { reason, waiter });
