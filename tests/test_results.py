"""Pages state what `results/` holds: nothing typed, nothing stale."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import fill_results
import numpy as np
import pytest
from pages import (
    claims,
    costs,
    evidence,
    figures,
    key_figure,
    last_run,
    maps,
    models,
    rates_figure,
    segmentation,
    size_figure,
    stored,
    svg,
    table_iii_figure,
)

from dsna_lib import paper
from dsna_lib.book import ledger
from dsna_lib.tables.segmentation import MEASURED as TABLES_OF_METHODS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "results").glob("*.json"))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A copy of the results without Table III and the times of chapters, in a folder that the tool reads."""
    for path in RESULTS:
        if not path.stem.startswith(("table_III", "chapters")):
            (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    return tmp_path


def segmentation_result(*titles: str) -> dict:
    """A file of Table III with made-up numbers: each row one point above the row before."""
    rows = []
    for step, title in enumerate(titles):
        mean = {"annotation": 30.0 + step, "single": 40.0 + step, "multi": 41.0 + step, "iou": 42.0 + step}
        scores = {"mean": mean, "std": dict.fromkeys(mean), "seeds": [mean]}
        rows.append({"title": title, "paper": {}, "per_class": {}} | scores)
    text = next(claim.text for claim in paper.CLAIMS if claim.rows == titles)
    claim = {
        "text": text,
        "source": "paper",
        "difference": 1.0,
        "low": 0.5,
        "high": 1.5,
        "corrected": 0.012,
        "verdict": "holds",
    }
    values = {
        "table": "III",
        "title": TABLES_OF_METHODS["III"],
        "columns": list(mean),
        "rows": rows,
        "claims": [claim],
    }
    how = {"pictures": {"mining": 3398, "train": 3398, "val": 500}, "protocol": "annotations of 224 x 224 input"}
    return {"values": values, "provenance": how | {"environment": {}}}


@pytest.mark.parametrize("page", fill_results.PAGES)
def test_pages_state_what_was_measured(page):
    text = (ROOT / page).read_text()
    assert fill_results.filled(text) == text, f"{page} and results/ differ: run python tools/fill_results.py"
    places = len(fill_results.NUMBER.findall(text)) + len(fill_results.BLOCK.findall(text))
    assert text.count("<!-- result") == places > 0, f"{page}: a marker that nothing fills"


def test_a_number_of_a_row_whose_title_has_spaces_is_filled():
    place = "<!-- result: table_III_voc_efficientnet_lite0 values/rows/full supervision/mean/annotation -->0<!-- / -->"
    assert fill_results.filled(place) == place.replace(">0<", ">100.0<")


@pytest.mark.parametrize("name", fill_results.BLOCKS)
def test_no_block_is_a_table_without_rows(name):
    """A head alone states nothing, and is what is left where nothing fits the question any more."""
    lines = fill_results.BLOCKS[name]().strip().splitlines()
    assert lines
    for head, line in enumerate(lines[:-1]):
        if set(line) <= set("|-: ") and line.startswith("|"):
            assert lines[head + 1].startswith("|"), f"below {lines[head - 1]!r} nothing stands"
    assert not (set(lines[-1]) <= set("|-: ")), f"below {lines[-2]!r} nothing stands"


VERDICT = re.compile(r"<!-- verdict: ([\w-]+) \| (.+?) \| (.+?) -->")
FIRM = re.compile(r"\b(holds?|contradict(s|ed)|(not |does not |is )separated?|firm(ly)?)\b(?! a | an | the )")
NONE = re.compile(r"no verdict|whether the paper's claims hold|ledger|the rule behind", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of a page's own words; verdicts that follow a full stop belong to it."""
    own = re.sub(r"<!-- results: [\w-]+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)
    return re.split(r"(?<=[.?!])(?=\s+[A-Z])|(?<=-->)(?=\s+[A-Z])|\n\n", own)


def test_what_counts_as_a_verdict():
    said = "A is firmly above B. See below.<!-- verdict: t | a | holds --> It holds the weight. One gives no verdict."
    first, *others = sentences(said)
    assert FIRM.search(first)
    assert not any(FIRM.search(each) and not NONE.search(each) and not VERDICT.search(each) for each in others)


@pytest.mark.parametrize("page", ["README.md", "book/intro.md", "book/results.md", "book/appendix.md"])
def test_a_sentence_that_states_a_verdict_names_its_claim(page):
    """Beside it stands which claim of which table it rests on, and that has the verdict which is stated."""
    text = (ROOT / page).read_text()
    for sentence in sentences(text):
        if FIRM.search(sentence) and not NONE.search(sentence):
            assert VERDICT.search(sentence), f"{page} says {sentence.strip()!r} and names no claim"
    for table, claim, verdict in VERDICT.findall(text):
        judged = {each["text"]: each["verdict"] for each in stored.values(table)["claims"]}
        assert judged.get(claim) == verdict, f"{page}: {claim!r} is {judged.get(claim)} in {table}, not {verdict}"


def test_a_model_that_ships_is_listed_once():
    """Its file in half precision has another digest than its run's own; scores were measured with either."""
    curves = [tuple(known["metrics"]["curve"]["mean_average_precision"]) for _, known in models._trained()]
    assert len(curves) == len(set(curves))


def test_figures_and_the_ledgers_file_are_those_of_the_results():
    assert (ROOT / "book" / "claims.csv").read_text() == claims.claims_csv()
    for path, content in figures.files().items():
        made = svg.drawn_from((ROOT / path).read_text())
        assert made == svg.drawn_from(content) is not None, f"{path} is old: run python tools/fill_results.py"


def test_the_scores_by_size_are_drawn_for_each_map_and_training():
    of = size_figure.sizes()
    figure = size_figure.draw(of, "black")
    assert len(figure.axes) == 3
    trainings = len(of["merged"])
    for axis in figure.axes:
        assert len(axis.lines) == 3 * (trainings + 1)
    bold = {line.get_label(): line.get_ydata() for line in figure.axes[2].lines if line.get_label() in of}
    first_bin = np.mean([bins[0]["iou"] for bins in of["merged"]])
    assert bold["merged"][0] == pytest.approx(first_bin)


def test_the_figure_shows_ten_claims_with_their_intervals():
    rows = key_figure.key_claims()
    assert len(rows) == 10
    for row in rows:
        row["drawn"] = {"difference": 1.5, "low": 0.5, "high": 2.5, "verdict": "holds"}
    drawn = svg.render(partial(key_figure.draw, rows), rows, "light")
    assert all(row["number"] in drawn for row in rows)
    assert drawn.count(key_figure.COLORS["holds"]) >= 20  # a mark and an interval each
    assert svg.digest(rows) != svg.digest(key_figure.key_claims())


def test_the_figure_of_maps_shows_every_claim_of_table_i_and_the_single_stream():
    shown = {row["text"] for row in key_figure.claims_of_maps()}
    assert shown == {claim.text for claim in paper.CLAIMS if claim.table in ("I", "single-stream")}


def test_the_figure_of_table_ii_shows_every_training_and_the_papers_rates():
    of = rates_figure.rates()
    figure = rates_figure.draw(of, "black")
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(lines["the paper"].get_ydata()) == [row["recall"] for row in paper.TABLE_II.values()]
    trainings = of["drawn"]["0.7"]
    assert lines["drawn"].get_ydata()[-1] == pytest.approx(np.mean([each["recall"] for each in trainings]))
    faint = [line for line in figure.axes[1].lines if set(line.get_xdata()) == {0.7}]
    assert [sorted(line.get_ydata()) for line in faint] == [sorted(each["recall"] for each in trainings)]
    spans = [np.ptp(axis.get_ylim()) for axis in figure.axes]
    assert spans == pytest.approx([rates_figure.SPAN] * 3)
    for axis in figure.axes:  # nothing lies outside
        low, high = axis.get_ylim()
        assert all(low < value < high for line in axis.lines for value in line.get_ydata())


def test_the_figure_of_table_iii_has_a_line_a_row_with_the_papers_number_where_it_has_one():
    of = table_iii_figure.rows()
    assert "annotation" not in of[-1], "the truth has no score of its own"
    (axis,) = table_iii_figure.draw(of, "black").axes
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "none"]
    printed = [row["paper"] for row in of if row["paper"] is not None]
    assert [line.get_xdata()[0] for line in hollow] == printed
    assert len(printed) > 3
    assert set(printed) <= {row.miou for row in paper.TABLE_III}
    assert [text.get_text() for text in axis.texts] == [row["title"] for row in of]


def test_the_summary_counts_every_measured_claim_of_the_paper():
    first, second = claims.summary().strip().split(" Of the ")
    number = int(first.split()[2])
    assert sum(int(count) for count in re.findall(r"\b(\d+) (?:hold|are|is|have|has)", first)) == number
    assert "photographs" in second


def test_the_papers_own_difference_is_a_slope_where_the_claim_is_one():
    known = {claim.text: claims.printed(claim) for claim in paper.CLAIMS}
    assert known["the expansive map has the higher IoU"] == pytest.approx(42.1 - 39.4)
    rates = [64.5, 65.7, 67.6, 69.6, 71.6, 74.1]
    assert known["recall grows with the dropout rate"] == pytest.approx(5 * np.polyfit(range(6), rates, 1)[0])
    assert known["DSNA's merged map beats CAM in IoU"] is None


def test_no_page_with_a_marker_is_forgotten():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("book/**/*.md"), *ROOT.glob("dsna_lib/**/*.md")]
    marked = {str(page.relative_to(ROOT)) for page in pages if "<!-- result" in page.read_text()}
    assert marked == set(fill_results.PAGES)


@pytest.mark.parametrize("page", sorted((ROOT / "book").rglob("*.md")), ids=lambda page: page.stem)
def test_no_marker_begins_a_line(page):
    """There it would begin a block of HTML, which ends the paragraph."""
    assert re.findall(r"(?m)^ *<!-- (?:result:|verdict:|/).*", page.read_text(encoding="utf-8")) == []


def test_what_the_ledger_lists_stands_nowhere_else():
    listed = [name for _, name, _ in fill_results.BLOCK.findall((ROOT / "book" / "claims.md").read_text())]
    assert "claims" in listed
    others = "".join((ROOT / page).read_text() for page in fill_results.PAGES if page != "book/claims.md")
    assert [name for name in listed if f"<!-- results: {name} -->" in others] == []


@pytest.mark.parametrize("table", ["claims", "statements", "definitions", "origins"])
def test_tables_of_words_are_aligned_to_the_left(table):
    assert set(fill_results.BLOCKS[table]().splitlines()[1].split()) == {"|", "---"}


def test_a_changed_number_is_noticed():
    text = (ROOT / "book" / "results.md").read_text()
    row = next(line for line in maps.table1().splitlines() if line.startswith("| merged |"))
    assert row in text
    assert fill_results.filled(text.replace(row, row.replace("44.0", "45.0"))) == text


def test_a_number_within_a_sentence():
    marked = "an IoU of <!-- result: table_I_voc_vgg16 values/rows/merged/mean/iou -->{}<!-- / --> percent"
    assert fill_results.filled(marked.format("99.9")) == marked.format("35.5")
    count = "<!-- result: table1_vgg16 provenance/trained/data/pictures -->{}<!-- / -->"
    assert fill_results.filled(count.format(0)) == count.format("3,398")


@pytest.mark.parametrize("path", ["values/rows/nothing/mean", "values/row/merged"])
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(KeyError):
        fill_results.number("table_I_voc_vgg16", path)


# A number in quotation marks is an example.
MEASURED = re.compile(r"(?<![\"\d.])\d+\.\d+ (?:%|points|percent|ms|seconds)|IoU (?:of|is|was) \d")


@pytest.mark.parametrize("page", sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("book/*.md")))
def test_no_measured_number_is_typed(page):
    text = (ROOT / page).read_text()
    for made in (fill_results.BLOCK, fill_results.NUMBER):
        text = made.sub("", text)
    assert MEASURED.findall(text) == [], "put it between markers, see tools/fill_results.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_results_say_where_they_come_from(path):
    content = json.loads(path.read_text())
    assert content["values"]
    assert content["provenance"]["environment"]["commit"]
    assert content["provenance"]["environment"]["packages"]["torch"]


# --- the ledger


def test_all_evidence_that_a_statement_names_is_measured_by_something():
    named = {name for statement in ledger.load().statements for name in statement.evidence}
    assert named == set(evidence.EVIDENCE)


def test_every_statement_has_its_line_and_its_answer():
    lines, statements = claims.statements().splitlines()[2:], ledger.load().statements
    assert len(lines) == len(statements)
    for line, statement in zip(lines, statements, strict=True):
        assert line.startswith(f"| {statement.section} | {statement.text} |")
        assert line.split(" | ")[-1].strip(" |").endswith("."), line


def test_every_claim_is_listed_whether_measured_or_not(results):
    lines = claims.claims().splitlines()[2:]
    assert len(lines) == len(paper.CLAIMS)
    third = [line for line in lines if line.startswith("| III.")]
    assert third
    assert all(line.endswith("| not measured yet | not measured yet |") for line in third)


def test_alike_verdicts_stand_together():
    first = [claim for claim in paper.CLAIMS if claim.table == "I"][:2]
    drawn, photographs = claims.verdicts(first)
    assert drawn.startswith("drawn: ")
    assert photographs == "photographs: one training: no verdict [I.1, I.2]"


def test_photographs_are_not_asked_for_parts():
    (claim,) = [c for c in paper.CLAIMS if c.text.startswith("CAM covers less")]
    (said,) = claims.verdicts([claim])
    assert said.startswith("drawn: ")


@pytest.mark.parametrize(("file", "name"), [("vgg16", ""), ("efficientnet_lite0", "EfficientNet-lite0: ")])
def test_table_iii_is_picked_up_when_it_is_there(results, file, name):
    assert segmentation.segmentation("photographs") == "*On photographs: not measured yet.*\n"
    assert "III.6" in claims.statements()
    content = segmentation_result("DSNA, expansive", "DSNA, merged")
    (results / f"table_III_voc_{file}.json").write_text(json.dumps(content))
    assert "| DSNA, merged | 31.0 | 41.0 | 42.0 | 43.0 |" in segmentation.segmentation("photographs")
    assert "3,398 pictures to mine" in segmentation.segmentation("photographs")
    (line,) = [line for line in claims.claims().splitlines() if line.startswith("| III.6 |")]
    assert line.endswith(f"| not measured yet | {name}holds: +1.0 (+0.5 to +1.5), p 0.012 |")
    (line,) = [line for line in claims.tables_of_the_paper().splitlines() if "| DSNA, merged |" in line]
    assert line.endswith(f"| 55.4 | not measured yet | {name}43.0 |")
    assert f"photographs: {name}holds [III.6]" in claims.statements().replace("Photographs", "photographs")


def test_several_networks_are_all_named_and_those_that_agree_together(results):
    for file in ("vgg16", "efficientnet_lite0"):
        content = segmentation_result("DSNA, expansive", "DSNA, merged")
        (results / f"table_III_voc_{file}.json").write_text(json.dumps(content))
    assert "Photographs: VGG-16 and EfficientNet-lite0: holds [III.6]" in claims.statements()
    content["values"]["claims"][0]["verdict"] = "contradicted"
    (results / "table_III_voc_efficientnet_lite0.json").write_text(json.dumps(content))
    (line,) = [line for line in claims.claims().splitlines() if line.startswith("| III.6 |")]
    assert "| VGG-16: holds: +1.0 (+0.5 to +1.5), p 0.012; EfficientNet-lite0: contradicted: +1.0" in line


def test_better_annotations_and_better_masks(results):
    assert evidence.annotations_and_masks() is None
    content = segmentation_result("AE, step 1", "AE, step 2", "AE, step 3")
    rows = content["values"]["rows"]
    (results / "table_III_minivoc.json").write_text(json.dumps(content))
    assert evidence.annotations_and_masks() is None  # a rank correlation over three rows says nothing
    rows *= 3
    (results / "table_III_minivoc.json").write_text(json.dumps(content))
    assert evidence.annotations_and_masks().endswith("drawn +1.00 over 9 rows")


# --- results that are older than the library


@pytest.fixture
def older(results):
    """The folder of the copies, none of which says by which recipe it was made."""
    for path in results.glob("*.json"):
        content = json.loads(path.read_text())
        content["provenance"].pop("recipe", None)
        path.write_text(json.dumps(content))
    return results


def make_anew(folder: Path, name: str) -> None:
    """Note a recipe in a file of results."""
    content = json.loads((folder / f"{name}.json").read_text())
    content["provenance"]["recipe"] = {"seeds": 3}
    (folder / f"{name}.json").write_text(json.dumps(content))


def line_below(name: str) -> str:
    """What stands below a block's own text: one line or none."""
    line = fill_results.block(name).removeprefix(fill_results.BLOCKS[name]()).strip()
    assert len(line.splitlines()) <= 1
    return line


def test_numbers_of_an_earlier_version_say_so_until_all_their_files_are_made_anew(older):
    files = {"whole": "table1_vgg16", "in part": "table_single-stream_voc_vgg16"}
    where = {key: stored.read(name)["provenance"]["environment"] for key, name in files.items()}
    line = line_below("table1")
    assert line.startswith("*Measured with an earlier version of the library (")
    for environment in where.values():
        assert f"`{environment['commit']}`" in line
        assert environment["time"][:10] in line
    make_anew(older, files["whole"])
    assert f"`{where['whole']['commit']}`" not in line_below("table1")
    assert f"`{where['in part']['commit']}`" in line_below("table1")
    make_anew(older, files["in part"])
    assert line_below("table1") == ""


def test_a_table_by_the_name_of_its_file_says_so_too(older):
    text = fill_results.block("table_I_minivoc")
    assert text.count("earlier version of the library") == 1
    make_anew(older, "table_I_minivoc")
    assert text.startswith(fill_results.block("table_I_minivoc"))
    assert "earlier version" not in fill_results.block("table_I_minivoc")


@pytest.mark.parametrize(
    "name", ["cost", "one_pass", "segmentation_speed", "definitions", "figures_of_the_paper", "origins"]
)
def test_times_words_and_provenance_need_no_such_line(older, name):
    assert line_below(name) == ""


def test_a_block_over_many_files_has_one_line_for_all(older):
    where = [stored.read(f"table_{name}_minivoc")["provenance"]["environment"] for name in ("I", "II", "methods")]
    for place, name in enumerate(("I", "II", "methods")):
        content = stored.read(f"table_{name}_minivoc")
        content["provenance"]["environment"] = where[place] | {"commit": f"commit-{name}"}
        (older / f"table_{name}_minivoc.json").write_text(json.dumps(content))
    line = line_below("claims")
    assert all(f"`commit-{name}`" in line for name in ("I", "II", "methods"))


def test_a_page_with_a_number_of_an_earlier_version_within_a_sentence_has_the_line():
    numbers = [(page, file) for page in fill_results.PAGES for _, file, _, _ in in_sentences(page)]
    assert numbers
    for page, file in numbers:
        provenance = stored.read(file)["provenance"]
        if stored.is_older(file, provenance):
            lines = [
                line for line in (ROOT / page).read_text().splitlines() if "earlier version of the library" in line
            ]
            assert any(provenance["environment"]["commit"] in line for line in lines), (page, file)


def in_sentences(page: str) -> list[tuple[str, ...]]:
    return fill_results.NUMBER.findall((ROOT / page).read_text())


# --- costs


def test_modules_of_the_library_go_by_their_last_name(results):
    titles = [line.split(": ")[1].split(" | ")[0] for line in costs.one_pass().splitlines()[2:]]
    assert "Grad-CAM, this library" in titles
    path = results / "one_pass_fp32.json"
    before, moved = costs.one_pass(), path.read_text().replace("dsna_lib.cams", "dsna_lib.elsewhere.cams")
    assert moved != path.read_text()
    path.write_text(moved)
    assert costs.one_pass() == before


# --- the last run


def test_the_last_run_is_shown_once_it_was_timed(results):
    assert last_run.chapter_times() == last_run.machine() == last_run.UNTIMED
    times = {
        "01_labels_without_masks": {"seconds": 9.6, "peak_mib": 780},
        "03_spatial_attention": {"seconds": 30.2, "peak_mib": 1900},
    }
    where = {
        "time": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "system": "Linux",
        "device": "CPU, 2 cores",
        "python": "3.11.7",
    }
    how = {"processor": "a processor", "memory_gib": 8, "tools": {"papermill": "2.7.0"}}
    how["environment"] = where | {"packages": {"torch": "2.15.0", "pydensecrf2": None}}
    values = {"chapters": times, "seconds": 25.3}
    (results / "chapters.json").write_text(json.dumps({"values": values, "provenance": how}))
    assert last_run.chapter_times().splitlines()[-1] == "| all, two at a time | 25 | 1,900 |"
    assert "| [01](../notebooks/01_labels_without_masks.ipynb) | 10 | 780 |" in last_run.chapter_times()
    assert "| torch | 2.15.0 |\n| pydensecrf2 | - |\n| papermill | 2.7.0 |" in last_run.machine()


def test_every_file_of_results_has_its_line():
    lines = last_run.origins().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == [path.name for path in RESULTS]
