"""The trusted kernel: proves a certificate's claims again, in float64 with rigorous error bounds, believing nobody.

It imports the standard library, numpy, scipy.sparse and onnx only, and reads model, specification and certificate
itself. Read it in this order: rejected, rounding, functions, network, rows (the mathematics); tensors, network_ops,
onnx_reader (the model); specification, vnnlib_text (what is to be proved); payload, manifest, claims (the check).
"""

from provenn.verifier.check.claims import Report, check
from provenn.verifier.check.network import Network
from provenn.verifier.check.onnx_reader import read_network
from provenn.verifier.check.rejected import CertificateRejected

__all__ = ["CertificateRejected", "Network", "Report", "check", "read_network"]
