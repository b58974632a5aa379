"""The reference pages and schemas that are printed from the code.

`python -m connector.reference` writes them anew; a test compares, so none can drift from the code.
"""
