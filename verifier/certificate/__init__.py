"""The producer of certificates; what a certificate says is defined by provenn.verifier.check."""
