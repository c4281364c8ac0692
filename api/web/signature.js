/* Who signed a certificate: a DSSE envelope, verified here, in the browser, with the service's public keys. */

/** {status, words} of an envelope. keys: as GET /v1/keys lists them; manifest: the bytes that must have been meant. */
export async function examine(envelope, keys, manifest) {
  const signature = envelope.signatures[0];
  const key = keys.find((each) => each.keyid === signature.keyid);
  if (!key) return { status: "unknown", words: "by a key that this service does not know" };
  const payload = decoded(envelope.payload);
  const told = JSON.parse(new TextDecoder().decode(payload));
  if (!crypto.subtle) return { status: "unknown", words: "not verified here: that takes https, or this machine" };
  if (told.predicate.manifest.digest.sha256 !== (await sha256(manifest))) {
    return { status: "invalid", words: "it is about another manifest" };
  }
  const retired = key.retired_at ? `, by a key retired on ${key.retired_at.slice(0, 10)}` : "";
  try {
    const known = await crypto.subtle.importKey("spki", decoded(key.public.replace(/-----[A-Z ]+-----|\s/g, "")), "Ed25519", false, ["verify"]);
    const good = await crypto.subtle.verify("Ed25519", known, decoded(signature.sig), signed(envelope.payloadType, payload));
    return good ? { status: "valid", words: `valid${retired}, verified in this browser` } : { status: "invalid", words: "the signature does not belong to it" };
  } catch (error) {
    return { status: "unknown", words: `not verified here: this browser knows no Ed25519 (${error.name})` };
  }
}

/** What a DSSE signature is over. */
function signed(type, payload) {
  const head = new TextEncoder().encode(`DSSEv1 ${new TextEncoder().encode(type).length} ${type} ${payload.length} `);
  const whole = new Uint8Array(head.length + payload.length);
  whole.set(head);
  whole.set(payload, head.length);
  return whole;
}

function decoded(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
