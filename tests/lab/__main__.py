"""``python -m tests.lab``: run the demo, use a kept lab, or stop one."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from . import processes, requirements
from .demo.run import STEPS, demo
from .demo.topology import DEMO
from .fleet import Fleet
from .lab import LABS, Lab, stop
from .machine import CommandFailed, Machine, shell
from .narrator import Narrator
from .underlay import Underlay

SALT_PROGRAMS = ("salt", "salt-run", "salt-key")


def main() -> int:
    """Run the action of the command line and return the exit status."""
    args = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    if reason := requirements.obstacle():
        print(reason, file=sys.stderr)
        return 2
    try:
        return int(args.action(args))
    except KeyboardInterrupt:
        print("\ninterrupted: all processes of the lab were ended", file=sys.stderr)
        return 130
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument(
        "--tag", help="the lab to use (default: the running one), or the name of a new one (default: demo)"
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    one = actions.add_parser("demo", help="build the demo's mesh and show that it works")
    one.add_argument("--keep", action="store_true", help="leave the lab running, and print how to use it")
    one.add_argument("--only-underlay", action="store_true", help="build the network only, without Salt")
    one.set_defaults(action=_demo)

    one = actions.add_parser("shell", help="a shell, or one command, on a machine")
    one.add_argument("machine")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one.set_defaults(action=lambda a: shell(_machine(a.tag or _the_tag(), a.machine), tuple(a.command)))

    for program in SALT_PROGRAMS:
        one = actions.add_parser(program, help=f"run {program} on the master", prefix_chars="\0", add_help=False)
        one.add_argument("words", nargs="*")
        one.set_defaults(action=_salt, program=program)

    one = actions.add_parser("stop", help="stop labs that were kept, and remove their folders")
    one.add_argument("tags", nargs="*", help="default: all labs of this repository")
    one.set_defaults(action=_stop)
    return parser


def _demo(args: argparse.Namespace) -> int:
    narrator = Narrator(1 if args.only_underlay else STEPS)
    with Lab(DEMO, tag=args.tag or "demo") as lab:
        try:
            good = demo(lab, narrator, only_underlay=args.only_underlay)
        except AssertionError as error:
            narrator.say(narrator.bad(f"✗ {error}"))
            good = False
        if args.keep:
            lab.keep = True
            _say_how(narrator, lab.tag)
        elif not good:
            lab.keep_folder = True
            narrator.say(f"logs: {lab.folder}/<machine>/salt/salt.log")
    return 0 if good else 1


def _say_how(narrator: Narrator, tag: str) -> None:
    run = f"{os.path.relpath(sys.executable)} -m tests.lab --tag {tag}"
    narrator.say(f"\nLab {tag} keeps running:")
    for what, command in (
        ("a shell on a node", f"{run} shell web1"),
        ("run salt", f"{run} salt '*' wgmesh.show"),
        ("run salt-run", f"{run} salt-run wgmesh.status"),
        ("stop it", f"{os.path.relpath(sys.executable)} -m tests.lab stop {tag}"),
    ):
        narrator.say(f"  {what:<18} {command}")


def _salt(args: argparse.Namespace) -> int:
    tag = args.tag or _the_tag()
    underlay = Underlay(DEMO, tag, LABS / tag)
    fleet = Fleet(underlay)
    return shell(fleet.master, tuple(fleet.command(args.program, *args.words)))


def _stop(args: argparse.Namespace) -> int:
    for tag in args.tags or _folders():
        stop(tag)
        print(f"lab {tag} was removed")
    return 0


def _folders() -> list[str]:
    return sorted(p.name for p in LABS.iterdir()) if LABS.is_dir() else []


def _the_tag() -> str:
    tags = sorted(processes.tags().intersection(_folders()))
    if len(tags) != 1:
        raise CommandFailed(f"{len(tags)} labs are running{': ' if tags else ''}{', '.join(tags)}: there must be one")
    return tags[0]


def _machine(tag: str, name: str) -> Machine:
    return Machine(name, tag, LABS / tag / name)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
