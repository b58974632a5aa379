"""The console: pages for people on the web port, for one process, for a supervisor's workers, and for a whole group.

What it shows and does comes through one port (`hosting.Host`), which a single process and a supervisor each fill.
"""
