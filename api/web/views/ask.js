/* The page that asks: a network, an input, a question. */

import { Problem, backends, get, model as described, post, upload } from "../api.js";
import { announce, find, refill } from "../dom.js";
import { percent, shape } from "../format.js";
import { InputChoice } from "../input/choice.js";
import { describe } from "./model.js";
import { Question } from "./question.js";

const CHOSEN = "provenn.model";

export class AskPage {
  constructor(service) {
    this.models = find("#models");
    this.question = new Question(find("#question"), () => this.#submit());
    this.input = new InputChoice(find("#input"), (value) => this.question.choose(value));
    this.words = find("#upload-words");
    this.progress = find("#upload-progress");
    this.models.addEventListener("change", () => this.models.value && this.#open(this.models.value));
    this.#acceptFiles();
    const demo = find("#demo");
    demo.disabled = !service.demo;
    demo.title = service.demo ? "two small networks and handwritten digits" : "needs scikit-learn: pip install \"provenn[demo]\"";
    demo.addEventListener("click", () => this.#demonstrate(demo));
  }

  /** What the service has, as far as the key allows. */
  async load() {
    try {
      this.question.know(await backends());
      await this.#list();
      const last = sessionStorage.getItem(CHOSEN);
      if (!this.model && [...this.models.options].some((option) => option.value === last)) await this.#open(last);
    } catch (error) {
      this.#say(error.message, error.status !== 401);
    }
  }

  async #list() {
    const { items } = await get("/v1/models?limit=100");
    const options = items.map((each) => [each.id, `${each.filename} (${shape(each.input_shape)})`]);
    refill(this.models, [["", options.length ? "choose one" : "none uploaded yet"], ...options]);
    this.question.others(options);
  }

  async #open(id) {
    try {
      this.model = await described(id);
    } catch (error) {
      return this.#say(error.message, true);
    }
    sessionStorage.setItem(CHOSEN, id);
    this.models.value = id;
    find("#model").replaceChildren(...describe(this.model));
    find("#model-card").hidden = false;
    this.input.of(this.model);
    this.question.of(this.model);
  }

  #acceptFiles() {
    const drop = find("#drop");
    const chosen = find("#network-file");
    const take = () => {
      if (chosen.files.length) this.#upload(chosen.files[0]);
      chosen.value = "";
    };
    chosen.addEventListener("change", take);
    take();  // somebody was quicker than this script
    for (const kind of ["dragenter", "dragover"]) {
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files.length) this.#upload(event.dataTransfer.files[0]);
    });
  }

  async #upload(file) {
    this.progress.classList.remove("unseen");
    this.progress.value = 0;
    this.#say(`Uploading ${file.name}`);
    try {
      const admitted = await upload(file, find("#architecture").value.trim(), (share) => {
        this.progress.value = share;
        this.#say(share < 1 ? `Uploading ${file.name}: ${percent(share)}` : `Reading ${file.name} in a sandbox`);
      });
      await this.#list();
      await this.#open(admitted.id);
      this.#say(`${admitted.filename} is here.`);
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#say(error.message, true);
      return false;
    } finally {
      this.progress.classList.add("unseen");
    }
  }

  async #demonstrate(button) {
    button.disabled = true;
    this.#say("Getting the demo: the first time it trains two networks, for some seconds.");
    try {
      const demo = await get("/v1/demo");
      this.input.offer(demo);
      for (const [name, data] of Object.entries(demo.networks).reverse()) {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        if (!(await this.#upload(new File([bytes], `${name}.onnx`)))) return;
      }
    } catch (error) {
      this.#say(error.message, true);
    } finally {
      button.disabled = false;
    }
  }

  #say(words, bad = false) {
    this.words.textContent = words;
    this.words.classList.toggle("bad", bad);
  }

  async #submit() {
    const { words, button, other } = this.question;
    const refuse = (message) => {
      words.textContent = message;
      words.classList.add("bad");
    };
    words.classList.remove("bad");
    button.disabled = true;
    words.textContent = "Sending the question";
    try {
      const body = await this.question.request();
      const first = await post("/v1/jobs", body);
      const second = other.value ? await post("/v1/jobs", { ...body, model: other.value }) : null;
      words.textContent = "";
      announce("The job has been queued");
      location.hash = second ? `#/compare/${first.id}/${second.id}` : `#/jobs/${first.id}`;
    } catch (error) {
      refuse(error.message);
    } finally {
      button.disabled = false;
    }
  }
}

