"""The reference pages that are printed from the code.

`python -m connector.reference` writes them to `docs/reference` anew; a test compares, so none can drift from the code.
The page of the settings has a module of its own, `connector.config.reference`.
"""
