// Elements whose contents are text. Nothing of a file or an answer is ever read as HTML.

/** Make an element with properties and children. A string becomes text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
