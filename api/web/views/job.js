/* One job, watched while it runs. Everything that changes has its place and its height from the beginning. */

import { ask, get, model as described, post } from "../api.js";
import { Enclosures } from "../charts/enclosures.js";
import { LineChart } from "../charts/line.js";
import { announce, h, notice } from "../dom.js";
import { percent, seconds, whole } from "../format.js";
import { follow } from "../events.js";
import { extent } from "../tensor.js";
import { results } from "./result.js";
import { outcome } from "./verdict.js";

const KINDS = { inputs: "Robustness", batch: "Batch", specification: "A property", lipschitz: "Lipschitz constant", monotonicity: "Monotonicity", jacobian: "Derivatives", tightness: "Tightness", patterns: "Activation patterns", radius: "Largest radius" };
const OUTPUTS = 100;
const LOGGED = 500;

export class JobView {
  /** heading: the tag of its title; chosen: the item to show at first; done(job): called once it is over. */
  constructor(id, { heading = "h1", chosen = null, done = () => undefined } = {}) {
    this.id = id;
    this.heading = heading;
    this.chosen = chosen;
    this.done = done;
    this.stopping = new AbortController();
    this.element = h("article", { class: "job" });
    this.bound = [];
    this.domains = [];
  }

  /** Draws the frame, then follows the job to its end. */
  async start() {
    try {
      const status = await get(`/v1/jobs/${this.id}`);
      [this.model, this.request] = await Promise.all([described(status.model), this.#request()]);
      this.#frame(status);
      if (this.heading === "h1") this.title.focus({ preventScroll: true });
      await follow(this.id, (kind, data) => this.#hear(kind, data), this.stopping.signal);
    } catch (error) {
      if (!this.stopping.signal.aborted) this.element.append(notice(error.message, "bad"));
    }
  }

  stop() {
    this.stopping.abort();
  }

  /** What was asked; null where it is not kept any more. */
  async #request() {
    try {
      return await (await ask("GET", `/v1/jobs/${this.id}/request`)).json();
    } catch (error) {
      if (error.status === 401) throw error;
      return null;
    }
  }

  #frame(status) {
    this.title = h(this.heading, { class: "job-title", tabindex: "-1" }, `${KINDS[status.kind] ?? "Job"}: ${this.model.filename}`);
    this.verdict = h("p", { class: "verdict" });
    this.bar = h("progress", { max: "1", value: "0", "aria-label": "Progress" });
    this.phase = h("span", { class: "phase one-line" });
    this.clock = h("span", { class: "clock" });
    this.cancel = h("button", { type: "button", class: "button", onclick: () => this.#cancel() }, "Cancel");
    this.again = h("button", { type: "button", class: "button", onclick: () => this.#again() }, "Ask again");
    this.log = h("ol", { class: "log", role: "log", "aria-relevant": "additions", "aria-label": "What happened", tabindex: "0" });
    this.charts = this.#charts(status);
    this.results = h("div", { class: "results" });
    this.element.replaceChildren(
      h("header", { class: "job-head card" },
        h("div", { class: "row" }, h("div", { class: "grow" }, this.title, h("p", { class: "words one-line" }, this.#words(status))), this.cancel, this.again),
        this.verdict,
        h("div", { class: "row progress-row" }, this.bar, this.clock),
        this.phase),
      h("div", { class: "live" }, ...this.charts, h("section", { class: "card", "aria-label": "What happened" }, h("h3", {}, "What happened"), this.log)),
      this.results);
    this.#show(status);
  }

  #words(status) {
    const count = status.progress.total;
    const items = count > 1 ? `${whole(count)} items, ` : "";
    const { epsilons = [] } = this.request?.inputs ?? this.request?.batch ?? {};
    const norms = epsilons.length ? `, ε ${epsilons.slice(0, 6).join(", ")}` : "";
    return `${items}method ${status.method}, at most ${seconds(status.seconds)}${norms}`;
  }

  #charts(status) {
    const inputs = this.request?.inputs;
    this.single = status.kind === "specification" || (inputs && inputs.inputs.length * inputs.epsilons.length === 1);
    const outputs = extent(this.model.output_shape);
    this.many = status.kind === "batch" || (inputs && !this.single);
    const { many } = this;
    this.boundChart = new LineChart(many ? "Decided items" : status.kind === "lipschitz" ? "Best proved constant" : "Best bound", {
      x: { label: "seconds", zero: true },
      y: { label: many ? "items" : "bound", zero: Boolean(many) },
      lines: [{ name: many ? "decided" : "best bound", step: "after" }],
      level: many || status.kind === "lipschitz" ? null : 0,
      empty: "no bound has been reported",
    });
    this.domainChart = new LineChart("Branch and bound: subdomains visited", {
      x: { label: "seconds", zero: true },
      y: { label: "subdomains", zero: true },
      lines: [{ name: "visited", step: "after" }],
      empty: "no branching so far",
    });
    const label = inputs?.labels.length === 1 ? inputs.labels[0] : null;
    const narrows = this.single && outputs <= OUTPUTS && status.method !== "lipschitz";
    this.enclosures = narrows ? new Enclosures(outputs, label) : null;
    const branches = ["inputs", "specification", "batch"].includes(status.kind) || status.method === "bab";
    const shown = branches ? [this.boundChart, this.domainChart] : [this.boundChart];
    const cards = shown.map((chart) => h("section", { class: branches ? "card" : "card span-all" }, chart.element));
    return this.enclosures ? [...cards, h("section", { class: "card span-all" }, this.enclosures.element)] : cards;
  }

  #hear(kind, data) {
    if (kind === "state") {
      this.#note(data.at, data.state.replace("_", " "), data.reason);
      if (data.state === "running") this.began ??= data.at;
      return;
    }
    this.#show(data);
    if (kind === "end") this.#end(data).catch((error) => this.results.replaceChildren(notice(error.message, "bad")));
    else if (data.progress.phase) this.#phase(data.changed_at, data.progress.phase);
  }

  /** A line a phase; what a phase says of itself later on replaces what it said before. */
  #phase(at, words) {
    const [head] = words.split(":");
    if (this.head === head && this.log.lastElementChild === this.line) this.line.lastChild.textContent = words;
    else this.line = this.#note(at, words, null);
    this.head = head;
  }

  #show(status) {
    const { progress } = status;
    const over = status.finished_at !== null;
    this.bar.value = progress.fraction;
    this.bar.textContent = percent(progress.fraction);
    this.clock.textContent = this.#time(status);
    this.phase.textContent = progress.phase && !over ? progress.phase : "";
    this.cancel.disabled = over;
    this.again.disabled = !over || !this.request;
    this.verdict.replaceChildren(...outcome(status));
    if (status.started_at) this.#plot(status);
    this.enclosures?.set(progress.bounds);
  }

  #plot(status) {
    const { progress } = status;
    const now = this.#since(status, status.changed_at);
    const value = this.many ? progress.done : progress.bound;
    if (value !== null) this.#bounded(now, value);
    if (progress.domains === null) return;
    this.domains.push([now, progress.domains]);
    this.domainChart.set({ visited: this.domains });
  }

  #bounded(now, value) {
    this.bound.push([now, value]);
    this.boundChart.set({ [this.boundChart.lines[0].name]: this.bound });
  }

  #time(status) {
    return status.started_at ? seconds(this.#since(status, status.finished_at ?? status.changed_at)) : "waiting";
  }

  /** Seconds from the first time that it ran: a job with parts, or one that is tried again, starts more than once. */
  #since(status, at) {
    return Math.max(0, (new Date(at) - new Date(this.began ?? status.started_at)) / 1000);
  }

  #note(at, words, reason) {
    if (this.log.childElementCount >= LOGGED) this.log.firstElementChild.remove();
    const time = new Date(at).toLocaleTimeString();
    const line = h("li", {}, h("time", { datetime: at }, time), h("span", {}, reason ? `${words}: ${reason}` : words));
    this.log.append(line);
    this.log.scrollTop = this.log.scrollHeight;
    return line;
  }

  async #end(status) {
    const job = await get(`/v1/jobs/${this.id}`);
    announce(`The job is over: ${job.verdict ?? job.state}`);
    if (this.heading === "h1") document.title = `${job.verdict ?? job.state} · Provenn`;
    const margin = this.single ? job.result?.items[0]?.margin : null;
    if (typeof margin === "number") this.#bounded(this.#since(job, job.finished_at), margin);
    this.enclosures?.close();
    if (job.result) this.results.replaceChildren(...results(job, this.request, this.model, this.chosen));
    else this.results.replaceChildren(notice(job.error?.detail ?? job.reason ?? `The job is ${status.state}.`, "bad"));
    this.done(job);
  }

  async #cancel() {
    try {
      await ask("DELETE", `/v1/jobs/${this.id}`);
    } catch (error) {
      this.#note(new Date().toISOString(), error.message, null);
    }
  }

  /** The same question once more, computed anew. */
  async #again() {
    try {
      const next = await post("/v1/jobs", { ...this.request, cache: false });
      location.hash = `#/jobs/${next.id}`;
    } catch (error) {
      this.#note(new Date().toISOString(), error.message, null);
    }
  }
}
