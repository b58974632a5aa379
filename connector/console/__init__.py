"""The console: pages for people on the web port, for one process, for a supervisor's workers, or for a whole group.

It reads and acts through one interface (`hosting.Host`), which a single process and a supervisor implement.
"""
