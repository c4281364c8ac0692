"""The trusted kernel: proves a certificate's claims again, in float64 with rigorous error bounds, believing nobody.

Read it in this order: rounding, functions, network, rows (the mathematics); passes, forms (of parts of a region);
tensors, network_ops, layer_reader, onnx_reader (the model); psd, quadratic, bordered, torus, jacobian, lipschitz (its
claims); specification (what is to be proved); manifest, trees, claims (the check).
"""

from provenn.verifier.check.claims import Report, check
from provenn.verifier.check.network import Network
from provenn.verifier.check.onnx_reader import read_network
from provenn.verifier.check.rounding import CertificateRejected

__all__ = ["CertificateRejected", "Network", "Report", "check", "read_network"]
