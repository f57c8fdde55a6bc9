// Each kind of problem in words: what happened, and what to do on this page. Without advice the service's own detail
// says what to do. It is for this occurrence, with sizes and limits.

const PROBLEMS = {
  "malformed-request": ["The request arrived damaged", "Try again. A proxy on the way may have changed it."],
  "missing-image": ["The file is empty", "Choose another file."],
  "unauthorized": ["The API key is missing or wrong", "Enter a valid key above."],
  "not-found": ["This is not there", "The service may have changed. Load this page again."],
  "method-not-allowed": ["The service does not take this request", "The service may have changed. Load this page again."],
  "body-too-slow": ["The upload took too long"],
  "body-too-large": ["The file is too large"],
  "image-too-large": ["The image has too many pixels"],
  "too-many-images": ["There were too many images at once"],
  "unsupported-image-format": ["The file is in a format that is not supported"],
  "unsupported-media-type": ["The request was of an unexpected kind", "Load this page again. A proxy may have changed the request."],
  "unsupported-encoding": ["The request was compressed on the way", "Turn off the compression of requests in the proxy."],
  "invalid-image": ["The image is damaged or incomplete"],
  "invalid-parameter": ["The service does not know a part of the request", "The model may have changed. Load this page again."],
  "overloaded": ["The service is busy"],
  "head-too-large": ["The request's headers are too large", "Delete the cookies of this address, then try again."],
  "internal-error": ["The service failed"],
  "not-ready": ["No model is ready"],
  "draining": ["The service is shutting down"],
  "deadline-exceeded": ["The answer took too long"],
  "unreachable": ["The service cannot be reached", "Check that it runs, and that this device is connected. Then try again."],
  "no-answer": ["The service does not answer", "It may be stuck. Try again, or ask its operator."],
  "foreign-answer": ["The answer is not from this service", "A proxy on the way may have refused the request. Ask its operator."],
};

const REASONS = {
  "low-probability": "No class is probable enough.",
  "unlike-training": "The photograph is unlike those that the model has learned from.",
};

/** Return a problem's title and sentences. The kind of a newer service has the service's own detail alone. */
export function describeProblem({ name, status, detail }) {
  const [title, advice = ""] = PROBLEMS[name] ?? [name.replaceAll("-", " ").replace(/^./, (letter) => letter.toUpperCase())];
  const sentences = [advice, detail].filter(Boolean);
  return { title: name === "foreign-answer" && status ? `${title} (status ${status})` : title, sentences };
}

/** Say why an answer is not confident. */
export const describeReason = (reason) => REASONS[reason] ?? "Its scores break a limit of the model.";

/** Say how often the model was confident about photographs of something else. Without any, the sentence is empty. */
export function describeOthers(confidence) {
  const sources = confidence?.none_of_these ?? [];
  const [numImages, numConfident] = ["num_images", "num_confident"].map((name) => sources.reduce((sum, source) => sum + source[name], 0));
  return numImages ? ` Of ${numImages} photographs of something else, it was confident about ${numConfident}.` : "";
}

/** Write a probability, such as 94.1 %. */
export const percent = (probability) => `${(100 * probability).toFixed(1)} %`;
