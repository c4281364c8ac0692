/* A certificate: what it claims, about which bytes, in which arithmetic, who signed it, and the check, again. */

import { ask, get, post, save } from "../api.js";
import { announce, facts, h, notice, table } from "../dom.js";
import { number, seconds, short, whole } from "../format.js";
import { examine } from "../signature.js";

const ARITHMETIC = {
  real: "real arithmetic on the file's exact weights, every rounding error bounded",
  float32: "every float32 execution of the network, in any order of summation",
};
const CLAIMS = 100;

/** A panel that fills itself. item: the job's, whose certificate it is. */
export function certificatePanel(item) {
  const body = h("div", { class: "reserve-certificate" }, h("p", { class: "words" }, "Reading the certificate"));
  const panel = h("section", { class: "card", "aria-label": "Certificate" }, h("h3", {}, "Certificate"), body);
  fill(item, body).catch((error) => body.replaceChildren(notice(error.message, "bad")));
  return panel;
}

async function fill(item, body) {
  const id = item.certificate;
  const bytes = await (await ask("GET", `/v1/certificates/${id}`)).arrayBuffer();
  const manifest = JSON.parse(new TextDecoder().decode(bytes));
  const signature = h("span", {}, "being verified");
  const verdict = h("div", { class: "recheck", role: "status" });
  const check = h("button", { type: "button", class: "button primary" }, "Check it again");
  check.addEventListener("click", () => recheck(id, check, verdict));
  body.replaceChildren(
    facts([
      ["Claims", `${manifest.verdict}: ${counted(manifest.claims)}`],
      ["About the network", digest(manifest.model.sha256_file)],
      ["and the property", digest(manifest.specification.sha256_file, manifest.specification.form)],
      ["Arithmetic", ARITHMETIC[manifest.semantics] ?? manifest.semantics],
      ["Proved margin", item.margin === null ? null : number(item.margin)],
      ["Assurance", item.assurance],
      ["Made and checked by", Object.entries(manifest.produced_by).map(([name, version]) => `${name} ${version}`).join(", ")],
      ["Signature", signature],
      ["Certificate", digest(id)],
    ]),
    h("div", { class: "row" }, check,
      h("button", { type: "button", class: "button", onclick: () => saved(`/v1/certificates/${id}/bundle`, `${id}.zip`, verdict) }, "Download it"),
      h("button", { type: "button", class: "button", onclick: () => saved(`/v1/models/${manifest.model.sha256_file}/file`, `${short(manifest.model.sha256_file)}.onnx`, verdict) }, "and its network")),
    h("p", { class: "hint" }, "Nothing here has to be believed: ", h("code", {}, `provenn check ${short(id)}….zip --model ${short(manifest.model.sha256_file)}.onnx`), " proves it again on your machine."),
    verdict,
    claimed(manifest.claims));
  await sign(id, bytes, signature);
}

async function sign(id, manifest, into) {
  const [envelope, { keys }] = await Promise.all([get(`/v1/certificates/${id}/attestation`), get("/v1/keys")]);
  const found = await examine(envelope, keys, manifest);
  into.className = found.status === "valid" ? "good" : found.status === "invalid" ? "bad" : "";
  into.replaceChildren(found.words, " ", h("code", { title: envelope.signatures[0].keyid }, `key ${short(envelope.signatures[0].keyid)}…`));
}

async function recheck(id, button, into) {
  button.disabled = true;
  into.replaceChildren(h("p", { class: "words" }, "The trusted checker is proving every claim again"));
  try {
    const found = await post(`/v1/certificates/${id}/check`);
    into.replaceChildren(h("p", { class: `notice ${found.accepted ? "good" : "bad"}` }, found.accepted ? "✓ accepted" : `✕ rejected: ${found.claim}: ${found.reason}`));
    if (found.accepted) into.append(proved(found));
    announce(found.accepted ? "The certificate was accepted" : "The certificate was rejected");
  } catch (error) {
    into.replaceChildren(notice(error.message, "bad"));
  } finally {
    button.disabled = false;
  }
}

function proved(found) {
  return facts([
    ["Proves", found.proves],
    ["Claims proved again", whole(found.claims)],
    ["Margin", found.margin === null ? null : number(found.margin)],
    ["Constants", found.uppers === null ? null : found.uppers.slice(0, 10).map(number).join(", ")],
    ["In", seconds(found.seconds)],
    ["By", Object.entries(found.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
  ]);
}

async function saved(path, name, into) {
  try {
    await save(path, name);
    announce(`${name} has been downloaded`);
  } catch (error) {
    into.replaceChildren(notice(error.message, "bad"));
  }
}

function digest(text, form) {
  return [h("code", { title: text }, `${text.slice(0, 16)}…`), form ? ` (${form})` : ""];
}

function counted(claims) {
  const kinds = new Map();
  for (const claim of claims) kinds.set(claim.kind, (kinds.get(claim.kind) ?? 0) + 1);
  return Array.from(kinds, ([kind, count]) => `${count} ${kind}`).join(", ");
}

function claimed(claims) {
  const rows = claims.slice(0, CLAIMS).map((claim) => [claim.id, claim.kind, claim.method ?? "–", subject(claim)]);
  const details = h("details", { class: "more" }, h("summary", {}, `${claims.length} claims`), table("Claims", ["id", "kind", "method", "about"], rows));
  if (claims.length > CLAIMS) details.append(h("p", { class: "hint" }, `and ${claims.length - CLAIMS} more`));
  return details;
}

function subject(claim) {
  if (claim.node) return `bounds of ${claim.node}`;
  if (claim.clause !== undefined) return `clause ${claim.clause}, row ${claim.row}: margin above ${claim.above}`;
  if (claim.clauses) return `clauses ${claim.clauses.join(", ")}, in ${claim.steps?.length ?? 0} steps`;
  return claim.upper ? `at most ${claim.upper}` : "–";
}
