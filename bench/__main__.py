"""Run one benchmark or all: ``python -m bench [name …]``."""

from __future__ import annotations

import importlib
import sys

from bench import plot, rows

ALL = ("scale", "view_bytes", "meshconf", "noop", "watching", "false_alarms", "healing", "failover", "changes")


def main(names: list[str]) -> int:
    """Write results, table and plot of each; exit status 1 if a goal was missed."""
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    missed = False
    for name in names or ALL:
        print(f"== {name}", flush=True)
        module = importlib.import_module(f"bench.{name}")
        measures = module.run()
        path = rows.write(name, measures, partial=getattr(module, "PARTIAL", False))
        plot.draw(name)
        print(rows.table(measures))
        print(f"-> {path}", flush=True)
        missed = missed or any(m.holds is False for m in measures)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
