"""The first five minutes: from a data file, and perhaps a model, to a recipe that runs."""
