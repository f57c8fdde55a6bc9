// Asks with a client whose types are generated. `classify.ts` is of docs/guides/openapi.md.
import { readFile } from "node:fs/promises";
import { classify, classifyJson, classifyRaw, connect, explain } from "./classify.js";

const [url = "", path = "", key = ""] = process.argv.slice(2);
const client = connect(url, key);
const photograph = new Blob([await readFile(path)], { type: "image/jpeg" });
const base64 = (await readFile(path)).toString("base64");
const answers = {
  form: await classify(client, photograph),
  raw: await classifyRaw(client, photograph),
  json: await classifyJson(client, base64),
  explained: await explain(client, photograph),
  refused: await classify(client, new Blob(["no image"])).catch((error: Error) => error.message),
};
console.log(JSON.stringify(answers));
