"""Completion in bash, zsh and fish: the scripts, and the answers they ask this program for.

A script runs the program with _CFCTL_COMPLETE=complete_SHELL and the words before the cursor; each
candidate leaves as one line `type TAB value TAB help`, and the type "file" or "dir" asks the shell to
complete paths. Typer's own classes would import rich on each TAB and print help text through it.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.typer_app import CLICK_PACKAGE
from cfctl.errors import InputError
from cfctl.text import safe_text

_click: Final[Any] = import_module(f"{CLICK_PACKAGE}.shell_completion")

_BASH: Final = r"""# bash completion for cfctl; installed as share/bash-completion/completions/cfctl
_cfctl_completion() {
    local kind value help
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
            *) printf -v value %q "$value" && COMPREPLY+=("$value") ;;
        esac
    done < <(_CFCTL_COMPLETE=complete_bash _CFCTL_LINE="${COMP_LINE:0:COMP_POINT}" "$1" 2>/dev/null)
}
complete -o nosort -F _cfctl_completion cfctl
"""

_ZSH: Final = r"""#compdef cfctl
# zsh completion for cfctl; installed as share/zsh/site-functions/_cfctl
_cfctl() {
    local line kind value
    local -a lines described
    lines=("${(@f)$(_CFCTL_COMPLETE=complete_zsh _CFCTL_WORDS="${(F)${(@Q)words[1,CURRENT-1]}}" \
        _CFCTL_INCOMPLETE="${(Q)PREFIX}" ${(Q)words[1]} 2>/dev/null)}")
    [[ $PREFIX == --*=* ]] && compset -P '*='
    for line in $lines; do
        kind=${line%%$'\t'*} line=${line#*$'\t'} value=${line%%$'\t'*}
        case $kind in
            file) _files ;;
            dir) _files -/ ;;
            plain) described+=("${value//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    (( $#described )) && _describe -V cfctl described
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _cfctl "$@"
else
    compdef _cfctl cfctl
fi
"""

_FISH: Final = r"""# fish completion for cfctl; installed as share/fish/vendor_completions.d/cfctl.fish
function __cfctl_complete
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    set -l option (string match -r -- '^--[^=]*=' $token; or echo)
    set -l value (string replace -- "$option" '' $token)
    for line in (_CFCTL_COMPLETE=complete_fish _CFCTL_INCOMPLETE="$token" \
            _CFCTL_WORDS=(string join \n -- $words | string collect) $words[1] 2>/dev/null)
        set -l part (string split \t -- $line)
        switch $part[1]
            case file
                printf '%s\n' $option(__fish_complete_path "$value")
            case dir
                printf '%s\n' $option(__fish_complete_directories "$value")
            case plain
                printf '%s%s\t%s\n' "$option" $part[2] $part[3]
        end
    end
end
complete --command cfctl --no-files --keep-order --arguments '(__cfctl_complete)'
"""

# Name of the file in completions/ and its content, per shell.
SCRIPTS: Final = {
    "bash": ("cfctl.bash", _BASH),
    "zsh": ("_cfctl", _ZSH),
    "fish": ("cfctl.fish", _FISH),
}


class _Completion(_click.ShellComplete):  # type: ignore[misc]
    """The words of a command line as one of the scripts sends them."""

    def source_vars(self) -> dict[str, Any]:
        """Return nothing: the scripts are complete."""
        return {}

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words after the program's name, and the incomplete one."""
        line = os.environ.get("_CFCTL_LINE")
        if line is None:
            words = os.environ.get("_CFCTL_WORDS", "").split("\n")
            return words[1:], os.environ.get("_CFCTL_INCOMPLETE", "")
        # bash cuts its own words at every "=" and ":", so it sends the line.
        words = _click.split_arg_string(line)
        if line[-1:].isspace():
            words.append("")
        return words[1:-1], words[-1] if len(words) > 1 else ""

    def format_completion(self, item: Any) -> str:
        """Return a candidate as one line."""
        return f"{item.type}\t{safe_text(item.value)}\t{safe_text(item.help or '')}"

    def complete(self) -> str:
        """Return all candidates; where the program has none, the shell offers files."""
        words, incomplete = self.get_completion_args()
        items = self.get_completions(words, incomplete)
        if not items and ("=" in incomplete or not incomplete.startswith("-")):
            return "file\t\t"
        return "\n".join(self.format_completion(item) for item in items)


def respond(command: Any, instruction: str) -> int:
    """Print what a shell asks for: "source_SHELL" or "complete_SHELL"; return the exit code."""
    action, _, shell = instruction.partition("_")
    if shell not in SCRIPTS or action not in {"source", "complete"}:
        raise InputError(
            f"_CFCTL_COMPLETE={instruction} can not be used.",
            f"It should be source_ or complete_ and one of {', '.join(SCRIPTS)}.",
        )
    if action == "source":
        print(SCRIPTS[shell][1], end="")
    else:
        print(_Completion(command, {}, "cfctl", "_CFCTL_COMPLETE").complete())
    return ExitCode.OK
