"""docs/cli.md from the typer app: each command with its help, an example, arguments and options."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

from typer.main import get_command

from recstore import cli

HEAD = """# The command line

Written by `make docs` from the code. `recstore COMMAND --help` says the same; settings of a recommender, which are options of
`create` and `alter`, are in [settings.md](settings.md).

## Of every command

- `recstore --database URL COMMAND ..`: the database; otherwise `RECSTORE_DATABASE_URL`, otherwise the embedded server of
  `RECSTORE_HOME`. `recstore --version` prints the version, `--help` or `-h` the help of a command.
- `--json`: standard output is one JSON document, and nothing else (`status --watch`: one for each look; `up`: one for each line).
  An error is one line on standard error, the last one: `{"error": SENTENCE, "kind": NAME, "data": {..}}`, with the names of
  `recstore.errors`.
- `--dry-run`: changes nothing, and prints what would be done. For `create`, `alter`, `grant`, `publish`, `rollback`, `prune`,
  `drop` and `db` that is the SQL, which `psql` would run as it is; lines that begin with `--` are remarks; with `--json` it is
  `{"statements": [..]}`. No session waits for it. What a run writes about itself in `recstore.runs` is not shown.
- `--yes`, `-y`: where something is replaced or dropped you are asked at a terminal; elsewhere this has to be said.
- `recstore --install-completion`: Tab completes commands and options in bash, zsh, fish and PowerShell, and from the database
  recommenders, generations, runs, studies, roles, tables and columns. `--show-completion` prints the script.

Data and answers go to standard output; progress, warnings and errors to standard error. Without a terminal there are no
bars and no colours, with `NO_COLOR` set no colours. Ctrl-C, or SIGTERM, at any moment leaves what is live, and nothing half
made; after a process that was killed the next run cleans up.

| exit code | |
|---|---|
| 0 | done |
| 1 | failed, or answered with no; what was live stays live |
| 2 | a mistake in what was asked |
| 3 | no connection |
| 4 | the generation is complete, but waits for another session before it goes live |
| 5 | refused by the gate or the source guard |
| 6 | `doctor` found warnings |
| 70 | a defect of recstore's own: it names a file to report |
| 130 | interrupted |
"""

COMMON = ("json", "help")
"""Options that are described at the beginning."""


def commands() -> Iterator[tuple[str, Any]]:
    """("recstore db upgrade", its command) of all, in the order of the help."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for part, found in command.commands.items():
                yield from walk(f"{name} {part}", found)
        else:
            yield name, command

    yield from walk("recstore", get_command(cli.application()))


def example(command: Any) -> str:
    """Return the command line of a command's help after "Example:"; empty without one."""
    found = re.search(r"Example: (recstore .+)", inspect.cleandoc(command.help or ""))
    return found[1].strip() if found else ""


def page() -> str:
    sections = [HEAD]
    listed = list(commands())
    sections.append("## Commands\n")
    sections += [f"- [`{name}`](#{name.replace(' ', '-')}): {_first(command)}" for name, command in listed]
    for name, command in listed:
        sections.append(_section(name, command))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(sections)).rstrip() + "\n"


def _first(command: Any) -> str:
    return re.split(r"(?<=[^.]\.)\s", " ".join(inspect.cleandoc(command.help or "").split()))[0]


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name not in COMMON]
    own = [one for one in options if "__" not in one.name]
    parts = [f"\n## {name}\n", f"```\n{_synopsis(name, arguments, command)}\n```\n"]
    text = re.sub(r"\s*Example: recstore .+", "", inspect.cleandoc(command.help or ""))
    parts.append(_escaped("\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))) + "\n")
    if line := example(command):
        parts.append(f"Example:\n\n```\n{line}\n```\n")
    rows = [f"| `{_metavar(one)}` | {_default(one)} | {_escaped(one.help or '')} |" for one in arguments]
    for panel in dict.fromkeys(getattr(one, "rich_help_panel", None) for one in own):
        rows += [_option(one) for one in own if getattr(one, "rich_help_panel", None) == panel]
    if rows:
        parts.append("\n".join(["| | default | |", "|---|---|---|", *rows]) + "\n")
    if len(own) < len(options):
        panels = dict.fromkeys(one.name.partition("__")[0] for one in options if "__" in one.name)
        listed = ", ".join(f"`[{panel}]`" for panel in panels)
        parts.append(f"And each setting of {listed}: [settings.md](settings.md#of-a-recommender).\n")
    if command.epilog:
        parts.append(_escaped(" ".join(command.epilog.split())) + "\n")
    if any(one.name == "json" for one in command.params):
        return "\n".join(parts)
    return "\n".join([*parts, "It has no `--json`.\n"])


def _synopsis(name: str, arguments: list[Any], command: Any) -> str:
    words = [_metavar(one) if one.required else f"[{_metavar(one).strip('[]')}]" for one in arguments]
    return " ".join([name, *(["[OPTIONS]"] if command.params else []), *words])


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if not option.is_flag:
        choices = get_args(option.type_descriptor.annotation)
        names += f" `{option.metavar or '|'.join(map(str, choices)) or option.name.upper()}`"
    return f"| {names.replace('|', chr(92) + '|')} | {_default(option)} | {_escaped(option.help or '')} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or callable(default) or default == () or (default is False and not parameter.secondary_opts):
        return ""
    if isinstance(default, bool):
        return f"`{(parameter.opts if default else parameter.secondary_opts)[0]}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _escaped(text: str) -> str:
    """So that Markdown shows what the help says."""
    return " ".join(text.split(" ")).replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
