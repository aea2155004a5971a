"""The last run of all chapters, and where every file of results comes from."""

from __future__ import annotations

from collections.abc import Callable

from dsna_lib.engine.files import read_json
from dsna_lib.tables.render import markdown
from pages import stored
from pages.claims import chapter_link
from pages.stored import read, text_table, values

UNTIMED = "*Not timed yet: `python tools/time_chapters.py` does it.*\n"


def chapter_times() -> str:
    """Seconds and memory of every chapter in its CPU profile."""
    if not (stored.FOLDER / "chapters.json").is_file():
        return UNTIMED
    measured = values("chapters")
    times = measured["chapters"]
    rows = [
        [chapter_link(name), f"{chapter['seconds']:.0f}", f"{chapter['peak_mib']:,.0f}"]
        for name, chapter in times.items()
    ]
    largest = max(chapter["peak_mib"] for chapter in times.values())
    rows.append(["all, two at a time", f"{measured['seconds']:.0f}", f"{largest:,.0f}"])
    return markdown(["chapter", "seconds", "memory of the largest process, MiB"], rows)


def machine() -> str:
    """Where the chapters ran, and with what."""
    if not (stored.FOLDER / "chapters.json").is_file():
        return UNTIMED
    how = read("chapters")["provenance"]
    where = how["environment"]
    rows = [
        ["time", where["time"]],
        ["commit", f"`{where['commit']}`"],
        ["system", f"{where['system']}, {where['device']}, {how['processor']}, {how['memory_gib']} GiB of memory"],
        ["Python", where["python"]],
        *([name, version or "-"] for name, version in (where["packages"] | how["tools"]).items()),
    ]
    return text_table(["what", "last run"], rows)


def origins() -> str:
    """Every file of results: when, where, and with which commit it was measured."""
    rows = []
    for path in sorted(stored.FOLDER.glob("*.json")):
        content = read_json(path, {"provenance": {"environment": dict}})  # it states no number: nothing to be recorded
        where = content["provenance"]["environment"]
        packages = where["packages"]
        rows.append([f"`{path.name}`", where["time"][:10], f"`{where['commit']}`", where["device"], packages["torch"]])
    return text_table(["file", "day", "commit", "device", "torch"], rows)


BLOCKS: dict[str, Callable[[], str]] = {block.__name__: block for block in (chapter_times, machine, origins)}
