"""The reference pages and schemas that are generated from the code: a tool of the source tree, not of the package.

`python -m reference` writes them; a test compares them, so none can drift from the code.
"""
