"""Who says that a batch holds: a statement like that about a certificate, over the manifest with the batch's root."""

from __future__ import annotations

import hashlib

from provenn.api.batch.bundle import MANIFEST, Manifest
from provenn.api.signing import CHECKER, Kind, resource, stated
from provenn.verifier.check.manifest import ASSURANCES

PREDICATE = "urn:provenn:predicate:batch:1"


def statement(manifest: bytes, name: str, batch: str) -> bytes:
    """What is signed: the manifest's claims about the model's file `name`, as canonical JSON.

    A function of these three alone. batch: SHA-256 of the whole bundle, unsigned. A bundle of one row alone has the
    same manifest: the statement is about it, too.   Raises: CertificateRejected if this is not a batch's manifest.
    """
    about = Manifest.read(manifest)
    predicate = {
        "certificate": resource("batch.zip", batch),
        "manifest": resource(MANIFEST, hashlib.sha256(manifest).hexdigest()),
        "data": {"sha256": about.data_sha256},
        "question": about.question.as_json(),
        "semantics": about.semantics,
        "assurance": ASSURANCES[about.semantics],
        "inputs": about.inputs,
        "rows": about.rows,
        "root": about.root,
        "prover": dict(about.produced_by),
        "checker": {CHECKER: about.produced_by.get("provenn", "")},
    }
    return stated(PREDICATE, resource(name, about.model_sha256), predicate)


BATCH = Kind(PREDICATE, MANIFEST, statement)
