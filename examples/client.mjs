// Client of the service for Node 18 and later: node examples/client.mjs PHOTOGRAPH...
// SERVICE_URL names the service. SERVICE_KEY holds an API key.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const url = process.env.SERVICE_URL ?? "http://127.0.0.1:8000";
const headers = process.env.SERVICE_KEY ? { "X-API-Key": process.env.SERVICE_KEY } : {};
const NUM_TRIES = 5;

// Classifies one photograph. Waits and tries again while the service is busy.
async function classify(photograph) {
  for (let num_left = NUM_TRIES - 1; ; num_left--) {
    const body = new FormData();
    body.append("file", new Blob([photograph]));
    const response = await fetch(`${url}/predict?top_k=1`, { method: "POST", headers, body });
    const answer = await response.json();
    if (response.ok) return answer;
    if (![429, 503].includes(response.status) || num_left === 0) throw new Error(`${answer.title}. ${answer.detail}`);
    await sleep(1000 * Number(response.headers.get("Retry-After") ?? 1));
  }
}

for (const path of process.argv.slice(2)) {
  try {
    const { label, probability, confident, reason } = await classify(await readFile(path));
    console.log(`${path}: ${label} (${(100 * probability).toFixed(1)}%${confident ? "" : `, ${reason}`})`);
  } catch (error) {
    console.error(`${path}: ${error.message}`);
    process.exitCode = 1;
  }
}
