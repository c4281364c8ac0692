/* A batch: accuracies against the radius with their intervals, the same by class, and the files it has left. */

import { save } from "../api.js";
import { LineChart } from "../charts/line.js";
import { announce, h, notice, table } from "../dom.js";
import { bytes, number, percent, short, whole } from "../format.js";

/** Elements about the result of a job of kind batch. */
export function batchPanels(job) {
  const found = job.result.batch;
  return [
    h("section", { class: "card", "aria-label": "Certified radius" },
      h("h3", {}, "By radius"),
      h("p", { class: "words" }, `Of ${whole(found.clean.total)} inputs ${share(found.clean)} are classified rightly without any change.`),
      curve(found), accuracies(found)),
    classes(found),
    files(job),
  ].filter(Boolean);
}

function curve(found) {
  const chart = new LineChart("Certified radius of the batch", {
    x: { label: "radius ε", zero: true },
    y: { label: "share of inputs", from: 0, to: 1 },
    lines: [
      { name: "certified", step: "before" },
      { name: "95 % interval", tone: "thin", step: "before" },
      { name: "upper end", tone: "thin", step: "before", unnamed: true },
      { name: "not refuted", tone: "muted", step: "after" },
    ],
  });
  const first = found.radii[0];
  const at = (of) => (first ? [[0, of(first)], ...found.radii.map((each) => [each.epsilon, of(each)])] : []);
  chart.set({
    certified: at((each) => each.certified.value),
    "95 % interval": at((each) => each.certified.low),
    "upper end": at((each) => each.certified.high),
    "not refuted": [[0, found.clean.value], ...found.radii.map((each) => [each.epsilon, each.attacked.value])],
  });
  return chart.element;
}

function accuracies(found) {
  const rows = found.radii.map((each) => [number(each.epsilon), share(each.certified), share(each.attacked),
    Object.entries(each.verdicts).map(([verdict, count]) => `${count} ${verdict}`).join(", ")]);
  return table("Accuracies by radius", ["ε", "certified (95 % interval)", "not refuted", "verdicts"], rows);
}

function classes(found) {
  const names = Object.keys(found.classes);
  if (!names.length) return null;
  const rows = names.map((name) => {
    const own = found.classes[name];
    return [name, whole(own.clean.total), share(own.clean), ...own.radii.map((each) => percent(each.certified.value))];
  });
  const heads = ["class", "inputs", "rightly", ...found.radii.map((each) => `certified at ${number(each.epsilon)}`)];
  return h("section", { class: "card", "aria-label": "By class" }, h("h3", {}, "By class"), table("Accuracies by class", heads, rows));
}

function files(job) {
  const said = h("div", { class: "recheck" });
  const rows = job.files.map((file) => [file.name, bytes(file.bytes), h("code", { title: file.sha256 }, `${short(file.sha256)}…`),
    h("button", { type: "button", class: "link", onclick: () => saved(job.id, file.name, said) }, "Download")]);
  return h("section", { class: "card", "aria-label": "Files" }, h("h3", {}, "Every row, and every certificate"),
    h("p", { class: "words" }, "One tree holds all rows: its root is ", h("code", {}, job.result.batch.root)),
    rows.length ? table("Files", ["file", "size", "SHA-256", ""], rows) : null, said);
}

async function saved(job, name, into) {
  try {
    await save(`/v1/batches/${job}/files/${name}`, `${short(job)}-${name}`);
    announce(`${name} has been downloaded`);
  } catch (error) {
    into.replaceChildren(notice(error.message, "bad"));
  }
}

function share(of) {
  return `${percent(of.value)} (${percent(of.low)} to ${percent(of.high)})`;
}
