"""Runs the gallery: public ports from the package index through the kit, and what it says of them.

    python tests/gallery/run.py --cache FOLDER [PORT ...] [--kit FOLDER] [--record]
    python tests/gallery/run.py --page

For each port: a virtual environment in FOLDER, its adapter there on the exported kit, the dump or
the ONNX files before `modernbert verify`, and verdict and causes beside those that the table
(public_ports.py) expects. --record keeps what was found in found.json; --page writes the table of
refimpl/verify/GALLERY.md from both. Needs this package to be importable, and the network once. It
decides nothing: what a port does wrong stands in the table, read from the port's source.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from public_ports import ENVIRONMENTS, PORTS, Port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOUND = HERE / "found.json"
PAGE = ROOT / "refimpl" / "verify" / "GALLERY.md"
# Of a whole run; the kit's own limits are shorter.
LIMIT_S = 3600


def call(*line: str | Path, log: Path, makes: Path | None = None) -> None:
    """Run a command with its output in a file. RuntimeError with its end when it fails: by its exit
    code, or, of one whose exit code is a verdict, by not writing the file that it makes."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        code = subprocess.run(
            [str(x) for x in line], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env=surroundings, timeout=LIMIT_S, check=False,
        ).returncode  # fmt: skip
    if code != 0 if makes is None else not makes.exists():
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(map(str, line[:4]))} ... ended with {code}:\n{tail}")


def environment(cache: Path, name: str) -> Path:
    """The interpreter of an environment, made when it is not there."""
    folder = cache / name
    python, done = folder / "bin" / "python", folder / "installed.json"
    wanted = ENVIRONMENTS[name]
    if done.exists() and json.loads(done.read_text(encoding="utf-8")) == [list(x) for x in wanted]:
        return python
    venv.create(folder, with_pip=True, clear=True)
    for packages in wanted:
        call(python, "-m", "pip", "install", "--quiet", *packages, log=cache / f"{name}.pip.log")
    done.write_text(json.dumps(wanted), encoding="utf-8")
    return python


def exported(cache: Path, kit: Path | None) -> Path:
    """The kit that was given, or a new one."""
    if kit is not None:
        return kit
    folder = cache / "kit"
    shutil.rmtree(folder, ignore_errors=True)
    call(sys.executable, "-m", "refimpl", "verify", "--export", folder, log=cache / "kit.log")
    return folder


def run(port: Port, cache: Path, kit: Path) -> dict[str, Any]:
    """What the kit says of a port, in few words: see `told`."""
    python = environment(cache, port.environment)
    out, page = cache / "out" / port.name, cache / f"{port.name}.json"
    shutil.rmtree(out, ignore_errors=True)
    page.unlink(missing_ok=True)
    out.mkdir(parents=True)
    call(
        python, HERE / "adapters" / port.adapter, kit, out, *port.options,
        log=cache / f"{port.name}.log",
    )  # fmt: skip
    # ONNX files are run where ONNX Runtime is.
    using = python if port.way == "onnx" else sys.executable
    extra = ["--dtype", port.dtype] if port.dtype else []
    call(
        using, "-m", "refimpl", "verify", f"--{port.way}", out, *extra, "--json", page,
        log=cache / f"{port.name}.txt", makes=page,
    )  # fmt: skip
    report = json.loads(page.read_text(encoding="utf-8"))
    return told(report) | {"versions": versions(python, port), "date": str(datetime.date.today())}


def told(report: dict[str, Any]) -> dict[str, Any]:
    """Verdict, dtype, causes (ids that cannot be told apart in one list; those of a declared
    deviation, too), the first wrong step, k, cases and steps compared, and what was not shown."""
    causes = [[s["id"], *s["tied_with"]] for s in report["suspects"]]
    for finding in report["findings"]:
        id = finding["data"].get("deviation")
        if id and not any(id in one for one in causes):
            causes.append([id])
    return {
        "verdict": report["verdict"],
        "dtype": report["dtype"],
        "causes": causes,
        "first_wrong": report["culprit"] and report["culprit"]["tap"],
        "k": report["smallest_k"],
        "cases": report["coverage"]["cases"],
        "steps": report["coverage"]["steps"],
        "not_shown": report["coverage"]["not_shown"],
    }


def versions(python: Path, port: Port) -> dict[str, str]:
    """Package -> installed version, of those that the table shows."""
    code = "import sys, json, importlib.metadata as m; "
    code += "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run(
        [str(python), "-c", code, *port.packages], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def faults(port: Port, found: dict[str, Any]) -> list[str]:
    """How what was found differs from what the table expects; empty when it is right."""
    out, left = [], list(found["causes"])
    if found["verdict"] != port.verdict:
        out.append(f"verdict {found['verdict']}; it is {port.verdict}")
    for cause in port.causes:
        named = next((one for one in left if cause in one), None)
        if named is None:
            out.append(f"{cause} is not named")
        else:
            left.remove(named)
    return out + [f"{one[0]} is named, and is not there" for one in left]


def recorded() -> dict[str, Any]:
    """Port -> what was found."""
    return json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}


# -- the page -------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """A row a port: what was run, what the kit said, what the source says, and whether it is so."""
    lines = [["port", "way in", "verdict", "causes named", "its source", "right"], ["---"] * 6]
    for port in PORTS:
        lines.append(row(port, found.get(port.name)))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row(port: Port, found: dict[str, Any] | None) -> list[str]:
    script = f"[{port.adapter}](../../tests/gallery/adapters/{port.adapter})"
    way = " ".join([script, *port.options])
    if found is None:
        return [port.title, way, "not run yet", "", port.source, ""]
    names = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    compared = f"{found['cases']['compared']} of {found['cases']['of']} cases"
    k = f", k {found['k']:.3g}" if found["verdict"] == "exact-spec" else ""
    verdict = f"**{found['verdict']}** as {found['dtype']}{k}, {compared}"
    causes = ", ".join(" = ".join(one) for one in found["causes"]) or "none"
    right = "; ".join(faults(port, found)) or "yes"
    return [f"{port.title} ({names})", way, verdict, causes, port.source, right]


def write_page(found: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    start, end = text.index("| port |"), text.index("\n\n", text.index("| port |"))
    PAGE.write_text(text[:start] + table(found) + text[end:], encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ports", nargs="*", metavar="PORT", help="default: all")
    parser.add_argument("--cache", type=Path, help="where environments and dumps go")
    parser.add_argument("--kit", type=Path, help="an exported kit (default: a new one)")
    parser.add_argument("--record", action="store_true", help="keep what is found in found.json")
    parser.add_argument("--page", action="store_true", help="write the table of GALLERY.md")
    args = parser.parse_args()
    names = [port.name for port in PORTS]
    if unknown := set(args.ports) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if args.cache is None and not args.page:
        parser.error("--cache names the folder for environments and dumps")
    wrong = 0
    if args.cache is not None:
        args.cache.mkdir(parents=True, exist_ok=True)
        cache, kit = args.cache.resolve(), exported(args.cache.resolve(), args.kit)
        for port in PORTS:
            if port.name not in (args.ports or names):
                continue
            found = run(port, cache, kit)
            said = faults(port, found)
            wrong += bool(said)
            print(f"{port.name}: {found['verdict']}, {found['causes']}: {said or 'right'}")
            if args.record:
                every = recorded() | {port.name: found}
                FOUND.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n", "utf-8")
    if args.page:
        write_page(recorded())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
