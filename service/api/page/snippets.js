// Lines to copy. A key is never among them: they read it from the environment.

import { element } from "./element.js";
import { BASE } from "./service.js";

/** Return language -> lines, for a service at `address`, with or without a key. */
function writeSnippets(address, hasKey) {
  const url = address.replaceAll("'", "%27");
  return {
    "curl": `curl -F file=@photo.jpg ${hasKey ? '-H "X-API-Key: $FLOWERS_API_KEY" ' : ""}'${url}'`,
    "Python": [
      ...(hasKey ? ["import os", ""] : []),
      "import httpx",
      "",
      'with open("photo.jpg", "rb") as photo:',
      `    answer = httpx.post(${JSON.stringify(url)}, files={"file": photo}${hasKey ? ', headers={"X-API-Key": os.environ["FLOWERS_API_KEY"]}' : ""})`,
      'print(answer.json()["label"])',
    ].join("\n"),
    "JavaScript": [
      'import { readFile } from "node:fs/promises";',
      "",
      "const form = new FormData();",
      'form.append("file", new Blob([await readFile("photo.jpg")]), "photo.jpg");',
      `const answer = await fetch(${JSON.stringify(url)}, { method: "POST", body: form${hasKey ? ', headers: { "X-API-Key": process.env.FLOWERS_API_KEY }' : ""} });`,
      "console.log((await answer.json()).label);",
    ].join("\n"),
  };
}

/** Fill the tabs. Arrow keys go from one to the next. */
export function showSnippets(hasKey) {
  const snippets = writeSnippets(new URL("predict", BASE).href, hasKey);
  const names = Object.keys(snippets);
  const tabs = names.map((name) => element("button", { type: "button", role: "tab", id: `tab-${name}`, textContent: name }));
  const panel = document.getElementById("snippet-panel");
  const select = (chosen) => {
    tabs.forEach((tab, index) => Object.assign(tab, { ariaSelected: String(index === chosen), tabIndex: index === chosen ? 0 : -1 }));
    tabs.forEach((tab) => tab.setAttribute("aria-controls", panel.id));
    panel.setAttribute("aria-labelledby", tabs[chosen].id);
    document.getElementById("snippet").textContent = snippets[names[chosen]];
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(index));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (!step) return;
      const next = (index + step + tabs.length) % tabs.length;
      select(next);
      tabs[next].focus();
    });
  });
  document.getElementById("languages").replaceChildren(...tabs);
  select(0);
}

document.getElementById("copy").addEventListener("click", async ({ target }) => {
  const code = document.getElementById("snippet");
  try {
    await navigator.clipboard.writeText(code.textContent);
    target.textContent = "Copied";
  } catch { // as on a plain HTTP address of another machine
    getSelection().selectAllChildren(code);
    target.textContent = "Selected, press Ctrl+C";
  }
  setTimeout(() => { target.textContent = "Copy"; }, 2000);
});
