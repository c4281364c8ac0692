"""The folders stay at the top level; they are imported as provenn.verifier, provenn.models, ..."""

from setuptools import find_packages, setup

FLOORS = ("verifier", "models", "solvers", "api")
INNER = [f"provenn.{name}" for floor in FLOORS for name in (floor, *(f"{floor}.{p}" for p in find_packages(floor)))]
setup(packages=["provenn", *INNER], package_dir={"provenn": "provenn", **{f"provenn.{f}": f for f in FLOORS}})
