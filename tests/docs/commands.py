"""Command lines in documents and deployments, compared with the existing commands."""

from typing import Any, Final

import typer.main

from connector.cli.main import app

PROGRAM: Final = "trackly-connector"
_OF_EVERY_COMMAND: Final = {"--help"}


def problem_with(arguments: list[str]) -> str | None:
    """Return what is wrong with the arguments of `trackly-connector`, None when they can be given.

    Looks at what the commands declare rather than having them parsed, so that no file need exist.
    """
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined] # a group
    if arguments in ([], ["--help"], ["--version"]):
        return None
    name, *rest = arguments
    if name not in commands:
        return f"there is no command {name}"
    group = getattr(commands[name], "commands", None)
    if group is None or rest in ([], ["--help"]):
        return _problem_with(name, commands[name].params, rest)
    inner, *rest = rest
    return _problem_with(inner, group[inner].params, rest) if inner in group else f"{name} has no command {inner}"


def _problem_with(name: str, params: list[Any], rest: list[str]) -> str | None:
    options = {spelling: param for param in params for spelling in (*param.opts, *param.secondary_opts)}
    arguments = [param for param in params if param.param_type_name == "argument"]
    words: list[str] = []
    waiting: str | None = None
    for word in rest:
        if waiting is not None:
            waiting = None
        elif not word.startswith("-"):
            words.append(word)
        elif word in _OF_EVERY_COMMAND:
            return None
        else:
            spelling, _, value = word.partition("=")
            if spelling not in options or options[spelling] in arguments:
                return f"{name} has no option {spelling}"
            waiting = spelling if not value and not options[spelling].is_flag else None
    if waiting is not None:
        return f"{name} wants a value for {waiting}"
    if len(words) > len(arguments):
        return f"{name} takes no {words[len(arguments)]}"
    needed = [param.name for param in arguments if param.required][len(words) :]
    return f"{name} needs {needed[0]}" if needed else None
