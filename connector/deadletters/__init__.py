"""Dead letters: reads them, chooses among them, and sends them again, exactly once.

`letters`, `selection`, `patching`, `headers`, `deciding`, `evidence`, `lines` and `sums` are pure; the others drive.
"""
