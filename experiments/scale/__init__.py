"""What a pre-training run and a crafting run cost on a given number of devices, from the compiled programs alone."""
