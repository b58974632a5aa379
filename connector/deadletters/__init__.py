"""Dead letters: reads them, selects among them, and sends them again, exactly once.

`letters`, `selection`, `patching`, `headers`, `deciding`, `evidence`, `lines` and `sums` are pure; the others drive.
"""
