"""What a training script leaves: digits.onnx, and digits.npz with the images that it is tested on.

python model.py              a network trained to be robust
python model.py --weakened   the same one trained without that: as accurate, and easily fooled
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits

IMAGES = 20


def main(arguments: list[str]) -> None:
    network = "digits-mlp" if "--weakened" in arguments else "digits-mlp-robust"
    Path("digits.onnx").write_bytes(load(network))
    _, test = load_digits()
    np.savez("digits.npz", x=test.images[:IMAGES], y=test.labels[:IMAGES])
    print(f"digits.onnx: {network}; digits.npz: {IMAGES} images")


if __name__ == "__main__":
    main(sys.argv[1:])
