/* A job's event stream by fetch, which can send a key, as EventSource cannot. */

import { Problem, ask } from "./api.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8000;

/** Calls hear(kind, data) for every event until `end`; takes a broken stream up again where it ended. */
export async function follow(job, hear, signal) {
  let last = null;
  let pause = FIRST_PAUSE;
  let over = false;
  while (!signal.aborted) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await ask("GET", `/v1/jobs/${job}/events`, { headers, signal });
      for await (const event of events(response.body)) {
        last = event.id ?? last;
        pause = FIRST_PAUSE;
        hear(event.kind, event.data);
        over = event.kind === "end";
      }
      if (over) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    await slept(pause, signal);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = read(block);
        if (event !== null) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** One event; null for comments, which keep the stream alive. */
function read(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return fields.event ? { kind: fields.event, id: fields.id ?? null, data: JSON.parse(fields.data) } : null;
}

function slept(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
