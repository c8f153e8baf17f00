"""The parts of `ranjax.stages.evaluate`: what is evaluated, how each kind of figure is found, where it is kept."""
