"""The parts of `ranjax.run.stages.evaluate`: the evaluated encoder, each kind of figure, and the record of results."""
