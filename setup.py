"""The configs of the checkout go into the package, as ranjax.configs; all else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["ranjax*"]), "ranjax.configs"], package_dir={"ranjax.configs": "configs"})
