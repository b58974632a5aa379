"""Settings: the models, how they are loaded, what must fit together, and how they are printed."""
