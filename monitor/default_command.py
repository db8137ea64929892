"""A command that is a command by itself and has sub-commands as well."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "default"
"""Name of the command that is taken where the first argument names no other."""


class DefaultGroup(TyperGroup):
    """A group that stands aside for its default command unless a sub-command is named.

    Help, errors and exit statuses are those of the default command, under the group's own name:
    an argument that is spelled like a sub-command is given to the default one as `./NAME`.
    """

    # The context that comes back is of whichever command will run: its class is private to Typer.
    def make_context(
        self, info_name: Any, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Parse the arguments, as the default command does unless they name another one."""
        named = bool(args) and args[0] in self.commands and args[0] != DEFAULT
        command: Any = super() if named else self.commands[DEFAULT]
        return command.make_context(info_name, args, parent, **extra)
