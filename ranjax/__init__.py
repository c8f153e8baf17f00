"""ranjax: adversarial noise in the upstream data of medical vision-language models; craft it, measure it, rectify it.

Importing this package imports nothing heavy; import the room you need, e.g. ``from ranjax import attacks``.
"""

__version__ = "0.3.0"
