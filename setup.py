"""The folders stay at the top level; they are imported as provenn.verifier, provenn.models, ..."""

from setuptools import find_packages, setup

FLOORS = ("verifier", "models", "solvers", "api")
PACKAGES = [
    "provenn",
    *(f"provenn.{p}" for floor in FLOORS for p in [floor, *(f"{floor}.{s}" for s in find_packages(floor))]),
]
setup(packages=PACKAGES, package_dir={"provenn": "provenn", **{f"provenn.{floor}": floor for floor in FLOORS}})
