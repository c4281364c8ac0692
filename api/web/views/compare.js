/* Two jobs side by side: the same question about two networks, or two questions about one. */

import { h, table } from "../dom.js";
import { number, seconds, whole } from "../format.js";
import { JobView } from "./job.js";
import { badge } from "./verdict.js";

export class CompareView {
  constructor(ids) {
    this.over = new Map();
    this.views = ids.map((id) => new JobView(id, { heading: "h2", done: (job) => this.#note(id, job) }));
    this.title = h("h1", { tabindex: "-1" }, "Side by side");
    this.table = h("div", { class: "card wide reserve-compare" }, h("p", { class: "words" }, "waiting for both answers"));
    this.element = h("div", {}, h("div", { class: "hero" }, this.title), this.table,
      h("div", { class: "both" }, this.views.map((view) => view.element)));
  }

  async start() {
    await Promise.all(this.views.map((view) => view.start()));
  }

  stop() {
    for (const view of this.views) view.stop();
  }

  #note(id, job) {
    this.over.set(id, job);
    if (this.over.size < this.views.length) return;
    const jobs = this.views.map((view) => this.over.get(view.id));
    const models = this.views.map((view) => view.model);
    const row = (name, of) => [name, ...jobs.map((each, k) => of(each, models[k]))];
    const radii = (jobs[0].result?.summary ?? []).map((each) => each.epsilon).filter((epsilon) => epsilon !== null);
    const share = (verdict) => (job) => (job.result ? whole(job.result.items.filter((item) => item.verdict === verdict).length) : "–");
    this.table.replaceChildren(table("Both answers", ["", "first", "second"], [
      row("network", (_, model) => model.filename),
      row("parameters", (_, model) => whole(model.parameters)),
      row("verdict", (job) => badge(job.verdict ?? job.state)),
      row("verified items", share("verified")),
      row("falsified items", share("falsified")),
      ...(radii.length > 1 ? radii.map((epsilon) => row(`certified at ε ${number(epsilon)}`, (job) => certified(job, epsilon))) : []),
      row("smallest margin", (job) => number(least(job))),
      row("Lipschitz constant", (job) => number([job.result?.items[0]?.lipschitz?.upper ?? null].flat()[0])),
      row("time", (job) => seconds(job.compute_seconds)),
    ]));
  }
}

function certified(job, epsilon) {
  const counts = job.result?.summary.find((each) => each.epsilon === epsilon);
  return counts ? `${counts.verified} of ${counts.verified + counts.falsified + counts.unknown + counts.timeout}` : "–";
}

function least(job) {
  const margins = (job.result?.items ?? []).map((item) => item.margin).filter((margin) => margin !== null);
  return margins.length ? Math.min(...margins) : null;
}
