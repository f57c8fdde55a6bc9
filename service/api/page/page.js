// The page: files in, cards out, and what the service says of itself.

import { setUpCamera } from "./camera.js";
import { Card } from "./card.js";
import { writeCsv } from "./csv.js";
import { element } from "./element.js";
import { offerSamples } from "./samples.js";
import { ask, BASE, enqueue, key } from "./service.js";
import { showSnippets } from "./snippets.js";
import { describeOthers, describeProblem, percent } from "./words.js";

const byId = (id) => document.getElementById(id);
const POLL_S = 5; // while the service takes no work
const NUM_LISTED_CLASSES = 12;
const STAGES = ["decode", "queue", "infer"];

let model = {}; // name, live, card, explanations: as far as the service has told
let cards = [];
let clearing = new AbortController();
let looking = null;
let nextLook = null;

if (`${location.pathname}/` === BASE.pathname) location.replace(BASE.href + location.search);

// What the service says of itself

/** Look at the service again. Calls at the same time share one look. */
function look() {
  looking ??= lookNow().finally(() => { looking = null; });
  return looking;
}

async function lookNow() {
  clearTimeout(nextLook);
  let isReady = false;
  try {
    const { json: list } = await ask("models");
    byId("key-form").hidden = true;
    byId("forget-key").hidden = !key.get();
    const listed = list.models.find(({ live_version: version }) => version !== null);
    if (listed) {
      const { json: details } = await ask(`models/${encodeURIComponent(listed.name)}`);
      showModel({ ...details, explanations: list.explanations === true });
    }
    await ask("readyz");
    isReady = Boolean(listed);
    showBanner(null);
  } catch (problem) {
    if (problem.name === "unauthorized") {
      wantKey(key.get() ? "This key was refused. Enter another one." : "");
      return;
    }
    showBanner(problem);
    nextLook = setTimeout(look, 1000 * Math.max(POLL_S, problem.retryAfterS));
    return;
  }
  if (!isReady) nextLook = setTimeout(look, 1000 * POLL_S);
}

function showModel(details) {
  model = details;
  const { name, live, card } = details;
  const version = live ? `, version ${live.version}` : "";
  byId("model").textContent = name + version;
  document.title = `${name}${version} · Image classification`;
  const classNames = card?.class_names ?? [];
  if (!classNames.length) return;
  const known = classNames.length > NUM_LISTED_CLASSES ? `${classNames.length} classes` : classNames.join(", ");
  byId("classes").textContent = `The model knows ${known}. It names one of them for every photograph, and says how sure it is.${describeOthers(card.confidence)}`;
  offerSamples(byId("samples"), byId("sample-list"), classNames, (file) => addFiles([file])).catch(() => {});
}

function showBanner(problem) {
  const banner = byId("banner");
  banner.hidden = !problem;
  if (!problem) return banner.replaceChildren();
  const { title, sentences } = describeProblem(problem);
  const parts = [element("strong", { textContent: title }), element("p", { textContent: sentences.join(" ") })];
  if (parts.map(({ textContent }) => textContent).join("") !== banner.textContent) banner.replaceChildren(...parts); // it is said once
}

// The key

function wantKey(sentence) {
  key.forget();
  byId("forget-key").hidden = true;
  byId("key-form").hidden = false;
  byId("key-error").textContent = sentence;
  byId("key-error").hidden = !sentence;
  showBanner(null);
  showSnippets(true);
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("key");
  const candidate = field.value.trim();
  try {
    if (!key.isSound(candidate)) return wantKey("A key has letters, digits and signs, and no spaces. Enter it again.");
    await ask("models", {}, candidate);
  } catch (problem) {
    if (problem.name === "unauthorized") return wantKey("This key was refused. Enter another one.");
    if (!problem.status) return showBanner(problem);
  }
  key.set(candidate); // any other answer is behind the keys
  field.value = "";
  say("The key was accepted.");
  await look();
  byId("choose").focus();
  for (const card of cards.filter(({ problem }) => problem?.name === "unauthorized")) score(card);
});
byId("forget-key").addEventListener("click", () => {
  key.forget();
  location.reload();
});

// Files in

function addFiles(files) {
  if (!files.length) return;
  const added = [...files].map((file) => new Card(file, { model: () => model, onRetry: score }));
  cards.push(...added);
  byId("gallery").prepend(...added.map(({ root }) => root)); // the newest first
  byId("results").hidden = byId("skip").hidden = false;
  say(added.length === 1 ? `${added[0].file.name} is sent.` : `${added.length} files are sent.`);
  added.forEach(score);
  added[0].root.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

for (const id of ["files", "capture"]) {
  byId(id).addEventListener("change", ({ target }) => {
    addFiles(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
}
byId("choose").addEventListener("click", () => byId("files").click());
setUpCamera((file) => addFiles([file]));

document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  addFiles(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const { files, items } = event.dataTransfer;
  const isFolder = [...items].map((item) => item.webkitGetAsEntry?.()?.isDirectory === true);
  const dropped = [...files].filter((_, index) => !isFolder[index]);
  addFiles(dropped);
  if (!dropped.length) say("There was no file. Save the photograph first, or open the folder and drop its files.", true);
});

// Answers out

async function score(card) {
  const { signal } = clearing;
  card.wait();
  showProgress();
  const startedAt = performance.now();
  try {
    const { json, headers } = await enqueue("predict", {
      method: "POST", body: card.file, headers: { "Content-Type": "application/octet-stream" },
    }, { signal, onWait: (seconds) => card.wait(`The service is busy. It is asked again in ${seconds} s.`) });
    if (json.model.version !== model.live?.version) await look();
    card.showAnswer(json, describeTiming(headers.get("Server-Timing") ?? "", performance.now() - startedAt));
  } catch (problem) {
    card.showProblem(problem);
    if (problem.name === "unauthorized" || !problem.status || problem.status >= 500) look();
  }
  if (!signal.aborted) showProgress(card);
}

function describeTiming(header, totalMs) {
  const stages = STAGES.map((stage) => [stage, new RegExp(`\\b${stage};dur=([\\d.]+)`).exec(header)?.[1]]);
  return [...stages.filter(([, ms]) => ms).map(([stage, ms]) => `${stage} ${Number(ms).toFixed(1)} ms`), `${Math.round(totalMs)} ms in all`];
}

/** Write how many are done. Say a single answer whole, and the end of many in one sentence. */
function showProgress(finished = null) {
  const numFailed = cards.filter(({ problem }) => problem).length;
  const numDone = cards.filter(({ body }) => body.ariaBusy === "false").length;
  const failed = numFailed ? `, ${numFailed} with a problem` : "";
  const sentence = `${numDone} of ${cards.length} done${failed}`;
  byId("progress").textContent = sentence;
  byId("download").disabled = numDone === 0;
  if (!finished) return;
  const { answer, problem, file } = finished;
  if (cards.length > 3) {
    if (numDone === cards.length) say(`${sentence}.`);
  } else if (problem) {
    say(`${file.name}: ${describeProblem(problem).title}.`);
  } else {
    say(`${file.name}: ${answer.label}, ${percent(answer.probability)}${answer.confident ? "" : ", not confident"}.`);
  }
}

byId("download").addEventListener("click", () => {
  const rows = cards.filter(({ answer, problem }) => answer || problem)
    .map(({ file, answer, problem }) => ({ file: file.name, ...(problem ? { problem: problem.name } : answer) }));
  const address = URL.createObjectURL(new Blob([writeCsv(rows)], { type: "text/csv;charset=utf-8" }));
  element("a", { href: address, download: "results.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
});
byId("clear").addEventListener("click", () => {
  clearing.abort();
  clearing = new AbortController();
  cards = [];
  byId("gallery").replaceChildren();
  byId("results").hidden = byId("skip").hidden = true;
  byId("choose").focus();
  say("The results are cleared.");
});

/** Say a sentence to a screen reader, and show it, too, where it is the only answer. */
function say(sentence, isShown = false) {
  byId("status").textContent = sentence;
  byId("status").classList.toggle("hidden", !isShown);
}

byId("docs").href = new URL("docs", BASE).href;
showSnippets(Boolean(key.get()));
addEventListener("online", look);
look();
