/* Recent jobs: a page at a time, two of which may be compared. */

import { get, model as described } from "../api.js";
import { h, notice, table } from "../dom.js";
import { moment, seconds, short } from "../format.js";
import { badge } from "./verdict.js";

const HEADS = ["", "answer", "network", "question", "method", "asked", "time", ""];

export class JobsPage {
  constructor(root) {
    this.root = root;
  }

  async load() {
    this.chosen = [];
    this.rows = [];
    try {
      await this.#more(null);
    } catch (error) {
      this.root.replaceChildren(notice(error.message, "bad"));
    }
  }

  async #more(cursor) {
    const { items, next } = await get(`/v1/jobs?limit=20${cursor ? `&cursor=${cursor}` : ""}`);
    const names = await Promise.all(items.map((job) => described(job.model).then((model) => model.filename, () => short(job.model))));
    this.rows.push(...items.map((job, k) => this.#row(job, names[k])));
    this.compare = h("button", { type: "button", class: "button", disabled: true, onclick: () => this.#compare() }, "Compare the two");
    const more = next ? h("button", { type: "button", class: "button", onclick: () => this.#more(next) }, "More") : null;
    this.root.replaceChildren(
      this.rows.length ? table("Recent jobs", HEADS, this.rows) : h("p", { class: "words" }, "There are no jobs yet."),
      h("div", { class: "row" }, this.compare, more));
    this.#ready();
  }

  #row(job, name) {
    const box = h("input", { type: "checkbox", "aria-label": `compare job ${short(job.id)}` });
    box.addEventListener("change", () => {
      this.chosen = box.checked ? [...this.chosen, job.id] : this.chosen.filter((id) => id !== job.id);
      this.#ready();
    });
    const link = h("a", { href: `#/jobs/${job.id}`, "aria-label": `job ${short(job.id)} about ${name}` }, "Open");
    return [box, badge(job.verdict ?? job.state), name, job.kind, job.method, moment(job.created_at), seconds(job.compute_seconds), link];
  }

  #ready() {
    this.compare.disabled = this.chosen.length !== 2;
  }

  #compare() {
    location.hash = `#/compare/${this.chosen.join("/")}`;
  }
}
