"""Training of the models that the agents run; needs the `train` extra."""
