"""`python -m connector`: the command line, where its script is not on the path."""

from connector.cli.main import main

main()
