// The heat map of a card, on demand: what the score of its best class rests on.

import { element } from "./element.js";
import { enqueue } from "./service.js";
import { drawHeat } from "./square.js";
import { describeProblem } from "./words.js";

/** Return the button that asks for the heat map. The slider and a sentence take its place. */
export function explain(card) {
  const { label } = card.answer;
  const place = element("div", { className: "heat" });
  const button = element("button", { type: "button", textContent: "Show the heat map" });
  const sentence = element("p", { className: "hint", role: "status" });
  place.append(button, sentence);
  button.addEventListener("click", async () => {
    button.disabled = true;
    sentence.textContent = "The service covers parts of the image, one after the other.";
    try {
      const { json } = await enqueue(`explain?label=${encodeURIComponent(label)}`, {
        method: "POST", body: card.file, headers: { "Accept": "application/json", "Content-Type": "application/octet-stream" },
      }, { onWait: (seconds) => { sentence.textContent = `The service is busy. It is asked again in ${seconds} s.`; } });
      showHeat(card, json, button, sentence);
    } catch (problem) {
      const { title, sentences } = describeProblem(problem);
      sentence.textContent = [`${title}.`, ...sentences].join(" ");
      button.disabled = false;
    }
  });
  return place;
}

function showHeat(card, { grid, label }, button, sentence) {
  const overlay = element("canvas", { ariaHidden: "true", className: "overlay" });
  const largest = drawHeat(overlay, grid);
  card.square.append(overlay);
  const slider = element("input", { type: "range", min: "0", max: "100", value: "70" });
  const follow = () => { overlay.style.opacity = slider.value / 100; };
  slider.addEventListener("input", follow);
  follow();
  const hadFocus = document.activeElement === button || document.activeElement === document.body;
  button.replaceWith(element("label", {}, "Heat map opacity", slider));
  if (hadFocus) slider.focus();
  const points = (100 * largest).toFixed(0);
  sentence.textContent = largest < 0.01
    ? `No part alone matters much. Whichever one is covered, ${label} loses less than 1 of 100 points.`
    : `The more a part is coloured, the more it speaks for ${label}. Covering the strongest one takes ${points} of 100 points.`;
}
