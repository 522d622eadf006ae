"""`python -m raymc.studies list|show|compare|export|delete|clean`: the studies of a storage."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymc.cli import Parser, add_common, add_running, make_parser, results, storage_root
from raymc.errors import InputError, unwritable
from raymc.execution.address import check_address
from raymc.study.names import check_run, find_study

if TYPE_CHECKING:
    from raymc.storage.cleaning import Needs, Plan

Row = dict[str, Any]
AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "": 86400, "d": 86400, "w": 7 * 86400}


def parser() -> Parser:
    """The options of `studies`."""
    parser = make_parser(
        "studies", "List, show, compare, export and delete studies, and clean their storage.", ("storage",)
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", help="what to do (default: list)")

    def action(name: str, text: str, *common: str) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=text, description=text)
        add_common(one, ("storage", *common), default=argparse.SUPPRESS)  # what stands before the action counts too
        return one

    action("list", "all studies and runs: state, trials, best, size, when")
    action("show", "how one stands").add_argument("name", metavar="NAME")
    compare = action("compare", "the winners on common fresh seeds, in pairs", "data", "smoke")
    compare.add_argument("names", metavar="NAME", nargs="+", help="two studies or more (also a search space)")
    compare.add_argument("--seeds", type=int, help="how many (default: 10)")
    compare.add_argument("--seed", type=int, help="the first one (default: one that no study has used)")
    add_running(compare)
    export = action("export", "a space file that trains the winner again")
    export.add_argument("name", metavar="NAME")
    export.add_argument("--out", type=Path, help="the file (default: NAME.yaml)")
    delete = action("delete", "remove a study or a run; stage results stay until `clean`")
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("--mlflow", action="store_true", help="its runs in MLflow too")
    delete.add_argument("--tracking-uri", help="MLflow (default: where the study was tracked)")
    delete.add_argument("--database", help="the server of its trials, with the password (default: RAYMC_DATABASE)")
    clean = action("clean", "remove stage results, banks, and torn or abandoned files that no study needs")
    clean.add_argument("--older", metavar="AGE", help="only what was not written for so long: 30d, 12h (default: 1h)")
    for one in (delete, clean):
        one.add_argument("--dry-run", action="store_true", help="only say what would go")
        one.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def run(args: argparse.Namespace) -> Row:
    """Do what `args` say; in words on standard output, with `--json` on standard error."""
    return ACTIONS[args.action or "list"](args)


def _list(args: argparse.Namespace) -> Row:
    from raymc.reporting.aligned import aligned
    from raymc.study.inventory import best_in_words, inventory, size_in_words, trials_in_words

    storage = storage_root(args)
    found = [entry.facts for entry in inventory(storage)]
    rows = [("name", "kind", "state", "done", "best", "size", "written")]
    for facts in found:
        sizes = size_in_words(facts["bytes"])
        words = (facts["state"], trials_in_words(facts), best_in_words(facts), sizes, _when(facts["written"]))
        rows.append((facts["name"], facts["kind"], *words))
    _say(args, aligned(rows) if found else f"no studies in {storage}")
    return {"storage": storage, "studies": found, "bytes": sum(facts["bytes"] for facts in found)}


def _show(args: argparse.Namespace) -> Row:
    storage = storage_root(args)
    check_run(storage, args.name)  # before torch is imported
    from raymc.reporting.aligned import aligned
    from raymc.study.inventory import best_in_words, find_entry, size_in_words, trials_in_words
    from raymc.study.words import configured

    facts = find_entry(storage, args.name).facts
    best = facts["best"] or {}
    lines = {
        "study": facts["name"],
        "kind": facts["kind"],
        "state": facts["state"],
        "done": trials_in_words(facts),
        "best": best_in_words(facts),
        "winner": f"trial {best['trial']}: {configured(best['params'])}" if "trial" in best else "",
        "configurations": ", ".join(map(str, facts.get("configurations", ()))),
        "space": facts.get("space"),
        "method, data": " on ".join(str(facts[key]) for key in ("method", "dataset") if facts.get(key)),
        "begun": _when(facts["created"]),
        "last written": _when(facts["written"]),
        "size": f"{size_in_words(facts['bytes'])} in {facts['files']} files",
        "place": f"{storage.rstrip('/')}/{facts['part']}",
        "trials at": facts.get("database"),
        "MLflow": facts.get("tracking_uri"),
    }
    _say(args, aligned([(name, str(value)) for name, value in lines.items() if value]))
    return facts


def _compare(args: argparse.Namespace) -> Row:
    if len(args.names) < 2:
        raise InputError(f"compare: name two studies or more, not {args.names[0]} alone")
    machines = check_address(args.address)
    from raymc.commands.stability import request_of, stability

    target, *others = args.names
    return stability(request_of(args, target, vs=tuple(others), machines=machines))


def _export(args: argparse.Namespace) -> Row:
    storage = storage_root(args)
    name = find_study(storage, args.name).name
    from raymc.storage.mirror import fetched
    from raymc.study.folder import read_manifest, read_space
    from raymc.study.reader import read_study
    from raymc.study.winner import export_winner

    out = (args.out or Path(f"{name}.yaml")).expanduser().resolve()
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {args.out}: expected: a name that ends in .yaml")
    if out.exists():
        raise InputError(f"--out {out} exists; give another name")
    with fetched(storage, f"studies/{name}") as folder:
        space = read_space(folder, read_manifest(folder))
        try:
            found = export_winner(read_study(folder), space, out)
        except OSError as error:
            raise unwritable(out, error, args.out is not None) from error
    if found is None:
        raise InputError(f"study {name} has no winner: no trial finished")
    _say(args, f"trial {found['trial']}, seed {found['seed']} of study {name}: {out}")
    return {"study": name, "out": str(out), **found}


def _delete(args: argparse.Namespace) -> Row:
    storage = storage_root(args)
    check_run(storage, args.name)
    from raymc.masking import masked
    from raymc.study.inventory import find_entry, size_in_words
    from raymc.study.removal import delete, plan_deletion

    entry = find_entry(storage, args.name)
    plan = plan_deletion(storage, entry, args.database)
    uri = _tracking(args, entry.facts) if args.mlflow and plan.spools else None
    place, size = f"{storage.rstrip('/')}/{entry.part}", entry.facts["bytes"]
    gone = [f"{place}: {size_in_words(size)} in {entry.facts['files']} files"]
    gone += [f"{plan.report}: its report"] if plan.report else []
    gone += [f"its trials at {masked(plan.server)}"] if plan.server else []
    gone += [f"its runs in MLflow at {masked(uri)}"] if uri else []
    _say(args, "\n".join([f"{entry.facts['kind']} {entry.name} ({entry.state}):", *(f"  {line}" for line in gone)]))
    result = {"name": entry.name, "bytes": size, "gone": gone, "deleted": False, "mlflow_runs": 0}
    if args.dry_run or not _agreed(args, "delete it?"):
        return result

    def forget_runs() -> None:
        if uri:
            from raymc.tracking.removal import delete_runs

            result["mlflow_runs"] = delete_runs(uri, plan.spools)

    delete(storage, plan, forget_runs)
    _say(args, f"deleted; `{_program('clean', storage)}` removes stage results that no study needs any more")
    return result | {"deleted": True}


def _clean(args: argparse.Namespace) -> Row:
    from raymc.storage.cleaning import clean
    from raymc.study.abandoned import abandoned_folders, remove_folders
    from raymc.study.inventory import size_in_words
    from raymc.study.needs import CurrentNeeds

    storage, older = storage_root(args), None if args.older is None else _age(args.older)
    needs = CurrentNeeds(storage)
    (plan, busy), folders = _planned(storage, needs(), older), abandoned_folders(storage)
    size = plan.bytes + sum(count for _, count in folders)
    for kind, of in plan.sums().items():
        _say(args, f"{WORDS[kind]}: {of['entries']}, {size_in_words(of['bytes'])}")
    for folder, count in folders:
        _say(args, f"abandoned: {folder}, {size_in_words(count)}")
    _say(args, f"{len(plan.needed)} stay because studies need them" + _also(plan.young, plan.at_work))
    if busy:
        _say(args, f"{', '.join(busy)} at work: what was written in the last hour stays")
    if silent := needs.silent:
        few = ", ".join(silent[:3]) + (" and others" if len(silent) > 3 else "")
        _say(args, f"all banks stay: {few}, of an earlier version, do not say which they use")
    result: Row = {"storage": storage, "bytes": size, **plan.sums(), "needed": len(plan.needed)}
    result |= {"folders": [str(folder) for folder, _ in folders], "young": len(plan.young), "cleaned": False}
    if args.dry_run:
        _say(args, f"{size_in_words(size)} would go")
        return result | {"at_work": len(plan.at_work)}
    if not plan.items and not folders:
        _say(args, "nothing to remove")
        return result | {"at_work": len(plan.at_work), "cleaned": True}
    if not _agreed(args, f"remove {size_in_words(size)}?", args.older is not None):
        return result | {"at_work": len(plan.at_work)}
    needs = CurrentNeeds(storage)  # the answer may have taken long
    now, _ = _planned(storage, needs(), older)
    done = clean(storage, now.within(plan), needs)
    folders = [found for found in abandoned_folders(storage) if found in folders]
    remove_folders(folders)
    freed = done.bytes + sum(count for _, count in folders)
    left = f"; {len(done.at_work)} left, since other processes are at work on them" if done.at_work else ""
    _say(args, f"{size_in_words(freed)} removed{left}")
    return result | done.sums() | {"bytes": freed, "at_work": len(done.at_work), "cleaned": True}


def _planned(storage: str, needs: Needs, older: float | None) -> tuple[Plan, list[str]]:
    """What can go now, and who is at work: what they have not said yet that they read is young, whatever was asked."""
    from raymc.storage.cleaning import HALF_WRITTEN_SECONDS, plan_cleaning
    from raymc.study.inventory import running

    busy, plan = running(storage), plan_cleaning(storage, needs, older)
    busy += ["a training"] if plan.at_work and not busy else []  # also one of `train`, `cluster` or `embed`
    if busy and older is not None and older < HALF_WRITTEN_SECONDS:
        plan = plan_cleaning(storage, needs, HALF_WRITTEN_SECONDS)
    return plan, busy


ACTIONS: Mapping[str, Callable[[argparse.Namespace], Row]] = {
    "list": _list,
    "show": _show,
    "compare": _compare,
    "export": _export,
    "delete": _delete,
    "clean": _clean,
}

WORDS = {
    "results": "stage results",
    "banks": "banks, features and tables of neighbours",
    "checkpoints": "checkpoints of trainings that nobody goes on with",
    "torn": "torn or abandoned files",
}


def _say(args: argparse.Namespace, text: str) -> None:
    print(text, file=results(args))


def _also(young: set[str], at_work: set[str]) -> str:
    found = [f"{len(young)} are too young"] if young else []
    found += [f"{len(at_work)} may be in the hands of other processes"] if at_work else []
    return "".join(f"; {one}" for one in found)


def _agreed(args: argparse.Namespace, question: str, without: bool = False) -> bool:
    """Whether to go on: `--yes`, or what is typed; where nobody types only `without`. Raises InputError there."""
    if args.yes:
        return True
    if sys.stdin.isatty():
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    if not without:
        raise InputError(f"nobody is there to be asked: {args.action} needs --yes, or --dry-run to see what would go")
    return True


def _age(text: str) -> float:
    """Seconds of `30d`, `12h`, `90m`; days without a letter. Raises InputError."""
    match = AGE.fullmatch(text)
    if match is None:
        raise InputError(f"--older {text}: expected: a number and s, m, h, d or w, e.g. 30d")
    return float(match[1]) * SECONDS[match[2]]


def _when(text: str | None) -> str:
    """A time of UTC in minutes."""
    return str(text or "").replace("T", " ")[:16]


def _tracking(args: argparse.Namespace, facts: Row) -> str:
    from raymc.tracking import uri

    return uri.resolve(args.tracking_uri, facts.get("tracking_uri"))


def _program(action: str, storage: str) -> str:
    from raymc.program import command_line

    return command_line("studies", [action, "--storage", storage])
