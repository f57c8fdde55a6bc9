// The sample photographs. They are offered only where the model knows exactly their classes.

import { BASE } from "./service.js";
import { element } from "./element.js";

const FOLDER = new URL("page/samples/", BASE);

/** Fill the list where the classes are those of the samples. `onFile` gets a chosen sample. */
export async function offerSamples(section, list, classNames, onFile) {
  const samples = await (await fetch(new URL("samples.json", FOLDER))).json();
  const labels = samples.map((sample) => sample.label);
  const fits = classNames.length === labels.length && labels.every((label) => classNames.includes(label));
  section.hidden = !fits;
  if (!fits) return;
  list.replaceChildren(...samples.map((sample) => element("li", {}, offer(sample, onFile))));
}

function offer(sample, onFile) {
  const address = new URL(sample.file, FOLDER);
  const button = element("button", { type: "button", ariaLabel: `Try the sample ${sample.label}` },
    element("img", { src: address.href, alt: "", width: 480, height: 360, loading: "lazy" }),
    element("span", { textContent: sample.label }));
  button.addEventListener("click", async () => {
    const blob = await (await fetch(address)).blob();
    onFile(new File([blob], sample.file, { type: "image/jpeg" }));
  });
  const source = element("a", { href: sample.source, rel: "noopener noreferrer", textContent: `Flickr ${sample.title}` });
  return element("figure", {}, button,
    element("figcaption", {}, source, ` by ${sample.photographer}, CC BY 2.0, changed`));
}
