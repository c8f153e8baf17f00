"""Print the script that lets a shell complete commands, options and configuration keys.

ranjax completion bash >> ~/.bashrc
ranjax completion zsh >> ~/.zshrc
"""

from __future__ import annotations

import argparse

from ranjax.cli import console, outcome

_SCRIPT = """\
_ranjax() {{
  local words
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words='{commands}'
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  local IFS=$' \\n'
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _ranjax ranjax
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that reads the script")


def run(arguments: argparse.Namespace) -> int:
    from ranjax.run import config as configs

    cases = []
    for name in console.COMMANDS:
        parser, _ = console.parser_of(name)
        words = parser.words()
        if "--config.KEY" in words:
            words.remove("--config.KEY")
            words += [f"--config.{key}" for key in configs.BY_NAME]
        cases.append(f"      {name}) words='{' '.join(words)}' ;;")
    if arguments.shell == "zsh":
        # zsh runs completion functions of bash.
        print("autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit")
    print(_SCRIPT.format(commands=" ".join(console.COMMANDS), cases="\n".join(cases)), end="")
    return outcome.DONE
