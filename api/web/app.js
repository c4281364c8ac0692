/* The page put together: what the service says of itself, the key, and which of the pages is shown. */

import { get } from "./api.js";
import { find, notice } from "./dom.js";
import { AskPage } from "./views/ask.js";
import { CompareView } from "./views/compare.js";
import { JobView } from "./views/job.js";
import { JobsPage } from "./views/jobs.js";
import { installKeyDialog } from "./views/key.js";

const TITLES = { ask: "Provenn", jobs: "Jobs · Provenn", job: "Job · Provenn", compare: "Side by side · Provenn" };
const JOB = /^#\/jobs\/([0-9a-f]{32})(?:\/(\d+))?$/;
const COMPARE = /^#\/compare\/([0-9a-f]{32})\/([0-9a-f]{32})$/;

class App {
  constructor(service) {
    this.pages = Object.fromEntries(["ask", "jobs", "job", "compare"].map((name) => [name, find(`#page-${name}`)]));
    this.watched = null;
    this.asking = new AskPage(service);
    this.jobs = new JobsPage(find("#jobs"));
    this.dialog = installKeyDialog(service, () => this.load());
    window.addEventListener("hashchange", () => this.route(true));
    find(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      find("#main").focus();
    });
  }

  /** Anew, as after another key. */
  load() {
    if (this.dialog.missing()) {
      this.dialog.open();
      return;
    }
    this.asking.load();
    this.route(false);
  }

  route(moved) {
    const { hash } = location;
    this.watched?.stop();
    this.watched = null;
    const [job, compared] = [JOB.exec(hash), COMPARE.exec(hash)];
    if (job) this.#watch("job", new JobView(job[1], { chosen: job[2] === undefined ? null : Number(job[2]) }));
    else if (compared) this.#watch("compare", new CompareView(compared.slice(1)));
    else this.#show(hash === "#/jobs" ? "jobs" : "ask", moved);
    if (hash === "#/jobs") this.jobs.load();
  }

  #watch(name, view) {
    this.watched = view;
    this.pages[name].replaceChildren(view.element);
    this.#show(name, false);
    view.start();
    window.scrollTo(0, 0);
  }

  #show(name, moved) {
    for (const [each, page] of Object.entries(this.pages)) page.hidden = each !== name;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = TITLES[name];
    if (moved) find("h1", this.pages[name])?.focus();
  }
}

async function start() {
  try {
    new App(await get("/web/service.json")).load();
  } catch (error) {
    find("#main").prepend(notice(error.message, "bad"));
  }
}

start();
