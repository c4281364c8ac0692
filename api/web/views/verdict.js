/* Verdicts and states, in a word, a mark and a colour; never in a colour alone. */

import { h } from "../dom.js";

const MARKS = {
  verified: ["✓", "good"],
  falsified: ["✕", "bad"],
  unknown: ["?", "open"],
  timeout: ["⧖", "open"],
  measured: ["≈", "good"],
  failed: ["!", "bad"],
  cancelled: ["–", "open"],
  timed_out: ["⧖", "open"],
  queued: ["…", "open"],
  running: ["▸", "live"],
  succeeded: ["✓", "good"],
};
const MEANINGS = {
  verified: "proved, and so for every input that was asked about",
  falsified: "a counterexample was found, and run",
  unknown: "neither proved nor refuted; another method or more time may decide",
  timeout: "the time ended before an answer",
  measured: "a measurement, which proves nothing",
  failed: "it could not be answered",
  cancelled: "it was cancelled",
  timed_out: "it was stopped: it did not answer in time",
  queued: "waits for a worker",
  running: "at work",
};

export function badge(word) {
  const [mark, tone] = MARKS[word] ?? ["?", "open"];
  return h("span", { class: `badge ${tone}` }, h("span", { "aria-hidden": "true" }, mark), ` ${word.replace("_", " ")}`);
}

/** The verdict of a job that has one, its state otherwise, with what that means. */
export function outcome(status) {
  const word = status.verdict ?? status.state;
  return [badge(word), h("span", { class: "meaning" }, MEANINGS[word] ?? "")];
}
