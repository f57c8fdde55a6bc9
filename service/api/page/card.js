// One image in the gallery: its square, and its answer or its problem.

import { element } from "./element.js";
import { explain } from "./explain.js";
import { drawSquare } from "./square.js";
import { describeProblem, describeReason, percent } from "./words.js";

const NUM_SHOWN = 5;
let drawing = Promise.resolve(); // one image at a time, since each is held whole

/**
 * A card with a skeleton in place of its answer.
 *
 * `model` is a function that returns what is known of the served model. `onRetry` is called by the button of a problem.
 */
export class Card {
  constructor(file, { model, onRetry }) {
    Object.assign(this, { file, model, onRetry, answer: null, problem: null });
    this.canvas = element("canvas", { role: "img", ariaLabel: `${file.name}, as the model sees it` });
    this.square = element("div", { className: "square" }, this.canvas);
    this.note = element("figcaption", { textContent: "As the model sees it" });
    this.body = element("div", { className: "answer" });
    this.root = element("li", { className: "card" },
      element("figure", { className: "view" }, this.square, this.note), this.body);
    this.wait();
    drawing = drawing.then(() => this.draw());
  }

  async draw() {
    try {
      await drawSquare(this.canvas, this.file, this.model().card?.preprocessing);
      this.note.textContent = `As the model sees it, ${this.canvas.width} × ${this.canvas.height} pixels`;
    } catch {
      this.canvas.remove();
      this.note.remove();
      this.square.append(element("p", { textContent: "This browser cannot show the file. The service may still read it." }));
    }
  }

  /** Show the skeleton, with a sentence such as that the service is busy. */
  wait(sentence = "Waiting for the answer.") {
    this.problem = null;
    this.fill(true, element("p", { className: "facts", textContent: sentence }),
      ...["bone wide", "bone", "bone", "bone"].map((className) => element("div", { className })));
  }

  showProblem(problem) {
    this.problem = problem;
    const { title, sentences } = describeProblem(problem);
    const retry = element("button", { type: "button", textContent: "Try again" });
    retry.addEventListener("click", () => this.onRetry(this));
    const parts = sentences.map((textContent) => element("p", { textContent }));
    this.fill(false, element("div", { className: "problem" }, element("strong", { textContent: title }), ...parts, retry));
  }

  /** Show an answer. `timings` are texts such as `infer 9.8 ms`. */
  showAnswer(answer, timings) {
    this.answer = answer;
    const { explanations, live } = this.model();
    const { label, probability, confident, reason, predictions, model } = answer;
    const best = element("h3", { className: "best" }, element("span", { textContent: label }), element("span", { textContent: percent(probability) }));
    const doubt = confident ? [] : [element("p", { className: "doubt", textContent: `Not confident. ${describeReason(reason)}` })];
    const rows = predictions.map(showScore);
    const rest = rows.slice(NUM_SHOWN);
    const more = rest.length ? [element("details", {}, element("summary", { textContent: `${rest.length} more classes` }), element("ul", { className: "scores" }, ...rest))] : [];
    const engine = live?.version === model.version ? [`${live.engine} on ${live.device}, ${live.precision}`] : [];
    const facts = [`${model.name}, version ${model.version}`, ...engine, ...timings];
    const heat = explanations ? [explain(this)] : [];
    this.fill(false, best, ...doubt, element("ul", { className: "scores" }, ...rows.slice(0, NUM_SHOWN)), ...more, ...heat,
      element("p", { className: "facts" }, ...facts.flatMap((textContent, index) => [index ? " · " : "", element("span", { textContent })])));
  }

  fill(isBusy, ...parts) {
    this.body.ariaBusy = String(isBusy);
    this.body.replaceChildren(element("p", { className: "file", textContent: this.file.name }), ...parts);
  }
}

function showScore({ label, probability }) {
  const bar = element("i");
  bar.style.setProperty("--share", probability);
  const meter = element("div", {
    className: "meter", role: "meter", ariaLabel: label, ariaValueMin: "0", ariaValueMax: "1",
    ariaValueNow: String(probability), ariaValueText: percent(probability),
  }, bar);
  return element("li", { className: "score" }, element("span", { textContent: label }), element("span", { textContent: percent(probability) }), meter);
}
