"""`medexp doctor`: can training work here?"""

import json

from medexp.cli.terminal import parser, wrapped

SIGNS = {"ok": " ", "note": "-", "bad": "!"}


def doctor(arguments: list[str]) -> int:
    """Print what is found, check by check; exit code 1 where training cannot work."""
    p = parser(
        "doctor",
        "Look at this installation and machine: versions, devices, whether a step of\n"
        "training works in each precision and how fast, memory, disk, cache, data sets,\n"
        "extras. Exit code 1 where training cannot work; each fault has its remedy.",
        "  medexp doctor\n"
        "  medexp doctor --quick                no speed test\n"
        "  medexp doctor --json                 for a bug report or a script\n",
    )
    p.add_argument("--quick", action="store_true", help="leave the speed test out")
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_intermixed_args(arguments)

    from dataclasses import asdict

    from medexp.jobs.doctor import BAD, examine

    found = []
    section = ""
    for one in examine(0.0 if args.quick else 1.0, arguments):
        found.append(one)
        if args.json:
            continue
        if one.section != section:
            section = one.section
            print(section)
        print(wrapped(f"{SIGNS[one.state]} {one.name}: {one.text}", 1, 4), flush=True)
        if one.remedy:
            print(wrapped(f"-> {one.remedy}", 5, 3), flush=True)
    bad = [one for one in found if one.state == BAD]
    if args.json:
        print(json.dumps({"works": not bad, "findings": [asdict(one) for one in found]}, indent=2))
    elif bad:
        names = ", ".join(one.name for one in bad)
        print(wrapped(f"Training cannot work here (marked !): {names}", hanging=2))
    else:
        print("Training works here. Try it: medexp train source=phantom trainer.epochs=5")
    return 1 if bad else 0
