"""``dsna figure``: figures and tables of the paper, out of the chapters that show them."""

from __future__ import annotations

import argparse
from typing import Any

from dsna_lib.book import chapters, exhibits
from dsna_lib.cli.main import UsageError, noted
from dsna_lib.engine import runs
from dsna_lib.engine.files import refuse_unwritable


def figure(args: argparse.Namespace) -> dict[str, Any]:
    """The files of every figure and table."""
    if args.list:
        for exhibit in exhibits.EXHIBITS:
            print(f"{exhibit.name:<20} {exhibit.chapter:<18} {exhibit.title}")
        return {"done": 0, "figures": {exhibit.name: vars(exhibit) for exhibit in exhibits.EXHIBITS}}
    if not args.names:
        raise UsageError("name a figure or table, such as 5 or II; --list says what there is")
    given = dict(args.parameter or []) | ({"profile": args.profile} if args.profile else {})
    result: dict[str, Any] = {"done": 0, "folder": args.out or runs.root() / "figures", "figures": {}, "failed": {}}
    asked = {"formats": args.format and tuple(args.format), "dpi": args.dpi}
    asked = {name: value for name, value in asked.items() if value is not None}
    look = chapters.Print(**asked) if asked else None
    by_chapter: dict[str, list[exhibits.Exhibit]] = {}
    for exhibit in exhibits.EXHIBITS if args.names == ["all"] else dict.fromkeys(map(exhibits.find, args.names)):
        by_chapter.setdefault(exhibit.chapter, []).append(exhibit)
    for chapter in by_chapter:  # before the first of them runs
        chapters.parameters(chapters.notebook_of(chapter), given)
    refuse_unwritable(result["folder"] / exhibit.name / "numbers.json")
    for chapter, wanted in by_chapter.items():
        with noted(args, result, chapter):
            run = chapters.execute(chapter, given, print, look)
            for exhibit in wanted:
                with noted(args, result, exhibit.name):
                    folder = result["folder"] / exhibit.name
                    files = exhibits.extract(exhibit, run, folder)
                    result["figures"][exhibit.name] = files
                    print(f"{folder}: {', '.join(file.name for file in files)}")
    result["done"] = len(result["figures"])
    return result
