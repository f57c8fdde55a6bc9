// Requests to the service: its address, its key, and a queue of at most four at once.

/** Folder of the service, whatever prefix a proxy has stripped. */
export const BASE = new URL("../", import.meta.url);
const MAX_REQUESTS = 4;
const MAX_TRIES = 8; // of a request that meets 429
const TIMEOUT_MS = 90_000;
const STORED_KEY = "api-key"; // in sessionStorage, which ends with the tab

/** A problem of the service (RFC 9457), or one of the way to it: `unreachable`, `no-answer`, `foreign-answer`. */
export class Problem extends Error {
  constructor(name, status, detail, retryAfterS = 0) {
    super(detail);
    Object.assign(this, { name, status, detail, retryAfterS });
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED_KEY),
  set: (value) => sessionStorage.setItem(STORED_KEY, value),
  forget: () => sessionStorage.removeItem(STORED_KEY),
  /** Whether a header can carry it. */
  isSound: (value) => /^[\x21-\x7e]+$/.test(value),
};

/** Send one request. Return the answer's JSON and headers. Throws a Problem. */
export async function ask(path, options = {}, candidate = key.get()) {
  const headers = new Headers(options.headers);
  if (candidate) headers.set("X-API-Key", candidate);
  let response;
  let body;
  try {
    response = await fetch(new URL(path, BASE), { ...options, headers, cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT_MS) });
    body = await response.text();
  } catch (error) {
    throw new Problem(error.name === "TimeoutError" ? "no-answer" : "unreachable", 0, "");
  }
  let json = null;
  try {
    json = JSON.parse(body);
  } catch { /* a proxy's own page */ }
  if (response.ok && json) return { json, headers: response.headers };
  const retryAfterS = Math.max(0, Number(response.headers.get("Retry-After")) || 0);
  const type = typeof json?.type === "string" ? json.type : "";
  if (!type.startsWith("/problems/")) throw new Problem("foreign-answer", response.status, "", retryAfterS);
  throw new Problem(type.slice("/problems/".length), response.status, String(json.detail ?? ""), retryAfterS);
}

const waiting = [];
let numActive = 0;
let pausedUntil = 0;
let timer = null;

/**
 * Send a request when one of four places is free. After a 429 the whole queue waits as long as the service says.
 * `onWait` is called with the seconds of each such wait. Work whose `signal` is aborted is not begun.
 */
export function enqueue(path, options, { onWait = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    waiting.push({ path, options, onWait, signal, resolve, reject, numTries: 0 });
    pump();
  });
}

function pump() {
  const leftMs = pausedUntil - Date.now();
  if (leftMs > 0) {
    timer ??= setTimeout(() => { timer = null; pump(); }, leftMs);
    return;
  }
  while (numActive < MAX_REQUESTS && waiting.length) {
    const job = waiting.shift();
    if (!job.signal?.aborted) run(job);
  }
}

async function run(job) {
  numActive += 1;
  try {
    job.resolve(await ask(job.path, job.options));
  } catch (problem) {
    job.numTries += 1;
    if (problem.status === 429 && job.numTries < MAX_TRIES) {
      const waitS = Math.max(1, problem.retryAfterS);
      pausedUntil = Math.max(pausedUntil, Date.now() + 1000 * waitS);
      job.onWait(waitS);
      waiting.unshift(job);
    } else {
      job.reject(problem);
    }
  } finally {
    numActive -= 1;
    pump();
  }
}
