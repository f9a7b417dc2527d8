"""Tab completion: commands and the keys of predict and export here, the rest by Hydra."""

import os
from collections.abc import Sequence

from medexp.cli import data, export, predict


def complete(words: list[str], commands: Sequence[str]) -> int:
    """Answer the shell, which asks the console script with the whole line in COMP_LINE.

    Hydra knows no subcommands, so ours is cut out of the line before Hydra is asked.
    """
    primary = "train"
    if any(word.startswith("query=") for word in words):
        typed = os.environ.get("COMP_LINE", "")
        question = for_hydra(typed.split(), typed.endswith(" "), commands)
        if question is None:
            return 0
        primary, os.environ["COMP_LINE"] = question
    from medexp.config.compose import hydra_main

    hydra_main(primary, lambda config: None, ["-sc", *words])
    return 0


def for_hydra(typed: list[str], ended: bool, commands: Sequence[str]) -> tuple[str, str] | None:
    """The primary config and the line that Hydra completes; None where all was printed here.

    typed: the words of the line so far; ended: whether the last of them is complete.
    """
    choosing = len(typed) < 2 or (len(typed) == 2 and not ended)
    if choosing:
        print(" ".join(commands))
        return None
    command = typed[1]
    if command == "data" and (len(typed) < 3 or (len(typed) == 3 and not ended)):
        print(" ".join(data.ACTIONS))
        return None
    own = {"predict": predict.completions, "export": export.completions}
    if command in own:
        print(" ".join(own[command]("" if ended else typed[-1])))
        return None
    if command not in ("train", "eval", "data"):
        return None
    kept = [word for word in typed[2:] if word not in ("-m", "--multirun", *data.ACTIONS)]
    primary = "train"
    if command == "eval":
        from medexp.config.line import read_partial
        from medexp.config.saved import complete_folders, primary_of_eval

        if not ended and typed[-1].startswith("run="):
            print(" ".join(complete_folders(typed[-1])))
            return None
        primary = primary_of_eval(read_partial(kept))
        kept = [word for word in kept if not word.startswith("run=")]
    return primary, " ".join(["medexp", *kept]) + (" " if ended or not kept else "")
