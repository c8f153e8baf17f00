"""The parts of `ranjax.run.stages.evaluate`: what is evaluated, how each kind of figure is found, where it is kept."""
