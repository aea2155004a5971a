"""The exercises: solved they pass, unsolved or answered wrongly they fail, and students get what the solutions give.

Cells are executed here, in one namespace, without a kernel: nothing in them needs one.
"""

import contextlib
import functools
import io
import re
from pathlib import Path

import nbformat
import pytest
import scripts
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "exercises" / "source").glob("*.ipynb"))
GRADING = {"grade", "grade_id", "locked", "points", "schema_version", "solution", "task"}

# Mistakes that students make: what of a solution is replaced, and by what. The repair of what misbehaves is tried with
# the version that misbehaves, too.
MISTAKES = [
    ("01", "dice", "2 * matrix.iou / (1 + matrix.iou)", "matrix.iou / (2 - matrix.iou)"),
    ("01", "mean-of-pictures", "[0, VOID]", "[VOID]"),
    ("01", "grown", "np.sqrt(np.bincount(part.ravel()))", "np.bincount(part.ravel())"),
    ("01", "repair", "mask[np.ix_(rows, columns)]", "shrunk_badly(mask, size)"),
    ("01", "repair", "+ 0.5", "+ 0"),
    ("02", "from-region", "plane[region].sum() / plane.numel()", "plane[region].sum() / region.sum()"),
    ("02", "max-pooling", "max_pool2d(a[", "max_pool2d(-a["),
    ("02", "pointing-game", "(k + 0.5)", "k"),
    ("02", "repair", "maps.min_max(square[:, : size[0], : size[1]])[0]", "on_picture_badly(plane, size)"),
    ("02", "repair", "square[:, : size[0], : size[1]])[0]", "square)[0, : size[0], : size[1]]"),
    ("03", "effective-locations", ".square()", ""),
    ("03", "exponential", ".softmax(dim=-1)", ".exp()"),
    ("03", "as-printed", "(attended * a)", "attended"),
    ("03", "repair", ".log()", ""),
    ("03", "repair", ".log() / t", " * a[0].numel() / t"),
    ("04", "gradient", "(s - p)", "s"),
    ("04", "tipping", "others.logsumexp(dim=0)", "others.exp().sum().log()"),
    ("04", "greed", "range(most + 1)", "range(1, most + 1)"),
    ("04", "repair", ", training=self.training", ""),
    ("04", "repair", "functional.dropout(values, self.rate, training=self.training)", "values"),
    ("05", "blind", "torch.xlogy(1 - share, 1 - share)", "0"),
    ("05", "sum", "weight_decay * classes", "weight_decay"),
    ("05", "pace", " * (1 - other)", ""),
    ("05", "repair", "rate * (1 - momentum) / size", "rate"),
    ("05", "repair", " * (1 - momentum)", ""),
    ("06", "equal-area", "[claimed]", "[claimed - 1]"),
    ("06", "by-lot", "comb(wins, shown) / comb(of, shown)", "(wins / of) ** shown"),
    ("06", "switch", "[*np.unique(area), np.inf]", "np.unique(area)"),
    ("06", "repair", "maps.min_max(resized) > threshold", "claimed_badly(planes, size, threshold)"),
    ("06", "repair", "maps.min_max(resized)", "torch.stack([annotate.resize(m, size) for m in maps.min_max(planes)])"),
    ("07", "trust", "(present - 1)", "present"),
    ("07", "needed-tau", "(present - 1)", "present"),
    ("07", "best-rule", "truth == label + 1", "truth == label"),
    ("07", "repair", "np.stack([1 - chance, chance])", "np.stack([np.full(plane.shape, 0.2), plane])"),
    ("07", "repair", "[0, threshold, 1], [0.05, 0.5, 0.95]", "[0, 1], [0.05, 0.95]"),
    ("08", "verdict", "stats.t.ppf(0.975, freedom)", "1.96"),
    ("08", "leave-one-out", "any(", "all("),
    ("08", "same-recall", ", left=np.nan, right=np.nan", ""),
    ("08", "repair", "sum(row[name] for name in common)", "sum(row.values())"),
    ("08", "repair", "row[name] for name in common", "list(row.values())[k] for k in range(len(common))"),
    ("09", "half-weight", "weight[-1] / 2", "0.5"),
    ("09", "top-share", "-heat", "heat"),
    ("09", "gained", "region & ~united", "region"),
    ("09", "repair", "rest[random.integers(len(rest), size=region.sum())]", "FILL"),
    ("09", "repair", "image[~region]", "image.reshape(-1, 3)"),
    ("09", "repair", "rest[random.integers(len(rest), size=region.sum())]", "rest.mean(axis=0).astype(np.uint8)"),
    ("10", "told", "[0, *(", "[*("),
    ("10", "worth", " / per_epoch", ""),
    ("10", "receptive-field", ") + 1", ")"),
    (
        "10",
        "repair",
        "(each / known.clamp_min(1)).sum() / (known > 0).sum()",
        "loss_badly(logits, labels) / torch.tensor(1)",
    ),
    ("10", "repair", "known.clamp_min(1)).sum() / (known > 0).sum()", "1).sum() / known.sum()"),
    ("11", "unit", "(classes - present)", "classes"),
    ("11", "unit", 'objects if kind in ("boxes", "masks") else present', "present"),
    ("11", "points", "[point.label + 1, point.y, point.x]", "[point.label, point.y, point.x]"),
    ("11", "points", " / sum(trust)", " / len(trust)"),
    ("11", "points", "torch.ones(1)", "torch.zeros(1)"),
    ("11", "points", "[~present].exp()", "[~present]"),
    ("11", "boxes-alone", ", reverse=True", ""),
    ("11", "boxes-alone", 'LABELS | {"boxes"}', 'LABELS | {"boxes", "masks"}'),
    ("11", "boxes-alone", ', "margin": self.margin', ""),
    ("11", "boxes-alone", "max(box.bottom - self.margin, 0)", "box.bottom - self.margin"),
    ("11", "boxes-alone", "mask[box.top : box.bottom, box.left : box.right] = VOID", "pass"),
    ("11", "boxes-alone", "mask[box.top : box.bottom,", "mask[box.top : box.bottom + 1,"),
    ("11", "repair", "return mask", "return on_grid_badly(points, size, grid)"),
    ("11", "repair", "return mask", "return on_grid_badly(points, size, grid, reach=4)"),
    ("11", "repair", "round(place * (cells - 1) / (full - 1))", "place * cells // full"),
    ("11", "repair", "if len(classes) == 1", "if classes"),
    ("12", "fence", " + torch.diag((P.sum(dim=1) == 0).to(P))", ""),
    ("12", "held-out", "fold != number", "fold == number"),
    ("12", "ancestor", ".flatten(2).softmax(dim=-1)", ".softmax(dim=1)"),
    ("12", "repair", "look(shown.flip(-1)).flip(-1)", "look(shown.flip(-1))"),
    (
        "12",
        "repair",
        "torch.stack(found).mean(dim=0)",
        "torch.stack([*found, *(m.flip(-1) for m in found)]).mean(dim=0)",
    ),
]


TOOL = scripts.load("tools/make_exercises.py")


@functools.cache
def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def release_of(path: Path) -> NotebookNode:
    return read(path.parents[1] / "release" / path.name)


def grading(cell: NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {"grade": False, "solution": False})


def coded(notebook: NotebookNode) -> list[tuple[NotebookNode, NotebookNode]]:
    """Each solution cell with code, and the cell of tests behind it."""
    pairs = zip(notebook.cells, notebook.cells[1:], strict=False)
    return [(cell, tests) for cell, tests in pairs if cell.cell_type == "code" and grading(cell)["solution"]]


def execute(cell: NotebookNode, namespace: dict, source: str | None = None) -> None:
    exec(compile(cell.source if source is None else source, f"<{cell.id}>", "exec"), namespace)


@functools.cache
def imported(path: Path) -> dict:
    """What the notebook's cells without an exercise define."""
    namespace = {}
    for cell in read(path).cells:
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata:
            execute(cell, namespace)
    return namespace


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_release_is_what_the_sources_give() -> None:
    assert TOOL.stale() == [], "run `python tools/make_exercises.py`"


def test_every_chapter_has_its_notebook() -> None:
    chapters = {chapter.stem for chapter in (ROOT / "notebooks").glob("*.ipynb")}
    assert {source.stem for source in SOURCES} == chapters


def test_has_metadata_that_nbgrader_takes(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    ids = [cell.metadata.nbgrader.grade_id for cell in graded]
    assert len(set(ids)) == len(ids)
    for cell in graded:
        meta = cell.metadata.nbgrader
        assert set(meta) - {"points"} == GRADING - {"points"}
        assert meta.grade_id == cell.id
        assert meta.schema_version == 3
        assert meta.task is False
        assert meta.locked == (meta.grade and not meta.solution)
        assert ("points" in meta) == meta.grade
        assert meta.get("points", 1) > 0
        if cell.cell_type == "markdown":
            assert meta.grade, "a written answer is graded by hand, in the very cell"
            assert meta.solution
    for solution, tests in coded(notebook):
        assert "### BEGIN SOLUTION" in solution.source
        assert grading(tests)["grade"]
        assert solution.metadata.tags == [TOOL.SITE_TAG], "the site folds solutions"
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_written_answers_are_folded(path: Path) -> None:
    answers = [cell for cell in read(path).cells if cell.cell_type == "markdown" and grading(cell)["solution"]]
    assert len(answers) >= 3
    for cell in answers:
        assert cell.source.startswith("<details>\n<summary>Answer</summary>\n\n")
        assert cell.source.endswith("\n\n</details>")


def test_code_in_an_answer_prints_what_the_answer_says(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown" and grading(cell)["solution"]:
            for code, said in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", cell.source, re.DOTALL):
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(code, {})
                assert printed.getvalue() == said


def test_exercises_go_from_easy_to_hard(path: Path) -> None:
    notebook = read(path)
    points = [grading(tests)["points"] for _, tests in coded(notebook)]
    assert points == sorted(points)
    assert len(set(points)) > 1
    everything = sum(grading(cell).get("points", 0) for cell in notebook.cells)
    assert f"{everything} points in all" in notebook.cells[0].source
    headings = [cell.source for cell in notebook.cells if re.match(r"## \d", cell.source)]
    said = [int(re.match(r"## \d+\. .* \((\d+) points?\)\n", text)[1]) for text in headings]
    cause = next(cell for cell in notebook.cells if cell.id == "cause")
    assert said == [*points[:-1], points[-1] + grading(cause)["points"]]


def test_the_last_exercise_diagnoses_and_repairs(path: Path) -> None:
    ids = [cell.id for cell in read(path).cells]
    wanted = ["repair-task", "symptom", "cause-task", "cause", "repair-do", "repair", "repair-test", "questions"]
    assert ids[ids.index("repair-task") :][: len(wanted)] == wanted
    cause = next(cell for cell in read(path).cells if cell.id == "cause")
    assert "Key: " in cause.source, "what gets the point"
    assert sum(name == "repair" and number == path.stem[:2] for number, name, _, _ in MISTAKES) >= 2


def test_hidden_tests_and_addresses(path: Path) -> None:
    assert any("### BEGIN HIDDEN TESTS" in cell.source for cell in read(path).cells)
    for notebook in (read(path), release_of(path)):
        for cell in notebook.cells:  # a student's copy lies anywhere
            assert re.findall(r"\]\((?!https?://)", cell.source) == [] or cell.cell_type == "code"


def test_solved_passes(path: Path) -> None:
    namespace = {}
    for cell in read(path).cells:
        if cell.cell_type == "code":
            execute(cell, namespace)
    assert 2 <= len(coded(read(path))) <= 4


def test_unsolved_fails(path: Path) -> None:
    exercises = coded(release_of(path))
    assert len(exercises) == len(coded(read(path)))
    for solution, tests in exercises:
        namespace = dict(imported(path))
        execute(solution, namespace)  # defines; only the tests call
        with pytest.raises(NotImplementedError):
            execute(tests, namespace)
        execute(solution, namespace, solution.source.replace("raise NotImplementedError()", "pass"))
        with pytest.raises((AssertionError, TypeError, ValueError, AttributeError)):
            execute(tests, namespace)


@pytest.mark.parametrize("number, name, right, wrong", MISTAKES, ids=lambda value: value[:30])
def test_a_typical_mistake_fails(number: str, name: str, right: str, wrong: str) -> None:
    path = next(source for source in SOURCES if source.stem.startswith(number))
    solution, tests = next(pair for pair in coded(read(path)) if pair[0].id == name)
    assert right in solution.source
    namespace = dict(imported(path))
    execute(solution, namespace, solution.source.replace(right, wrong))
    with pytest.raises((AssertionError, ValueError, IndexError)):
        execute(tests, namespace)


def test_every_exercise_has_a_mistake() -> None:
    exercises = {(path.stem[:2], cell.id) for path in SOURCES for cell, _ in coded(read(path))}
    assert exercises == {(number, name) for number, name, _, _ in MISTAKES}


def test_students_see_no_solution(path: Path) -> None:
    text = (path.parents[1] / "release" / path.name).read_text()
    for trace in ("BEGIN SOLUTION", "HIDDEN TESTS", "<details>", TOOL.SITE_TAG, TOOL.SITE_METADATA):
        assert trace not in text
    answers = [cell for cell in release_of(path).cells if cell.cell_type == "markdown" and grading(cell)["solution"]]
    assert [cell.source for cell in answers] == [TOOL.TEXT_STUB] * len(answers)


def test_the_page_of_exercises_names_it(path: Path) -> None:
    page = (ROOT / "book" / "exercises.md").read_text()
    for version in ("source", "release"):
        assert f"(../exercises/{version}/{path.name})" in page or f"<../exercises/{version}/{path.name}>" in page


# --- the tool ---------------------------------------------------------------------------------------------------------


def test_regions_are_replaced_at_their_indent() -> None:
    text = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\nx = 1"
    assert TOOL.without_region(text, "SOLUTION", ("a", "b")) == ("def f():\n    a\n    b\nx = 1", True)
    assert TOOL.without_region("x = 1", "SOLUTION", ("a",)) == ("x = 1", False)
    twice = "### BEGIN HIDDEN TESTS\n1\n### END HIDDEN TESTS\n2\n### BEGIN HIDDEN TESTS\n3\n### END HIDDEN TESTS"
    assert TOOL.without_region(twice, "HIDDEN TESTS") == ("2", True)


@pytest.mark.parametrize(
    "text",
    [
        "### BEGIN SOLUTION\n1",
        "1\n### END SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
    ],
)
def test_markers_without_their_partner_are_refused(text: str) -> None:
    with pytest.raises(TOOL.ExerciseError, match="without its partner"):
        TOOL.without_region(text, "SOLUTION")


def exercises_of(folder: Path, *cells: NotebookNode) -> Path:
    """A folder of exercises with one source notebook."""
    source = folder / "source" / "one.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=list(cells))))
    return folder


def cell(text: str, kind: str = "code", **meta: bool) -> NotebookNode:
    new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    return new(text, metadata={"nbgrader": {"grade": False, "solution": False} | meta} if meta else {})


def test_what_students_get_is_written_and_then_fresh(tmp_path: Path) -> None:
    ran = cell("### BEGIN SOLUTION\n1\n### END SOLUTION", solution=True)
    ran.execution_count, ran.metadata["tags"] = 3, [TOOL.SITE_TAG, "kept"]
    folder = exercises_of(tmp_path, ran, cell("my answer", "markdown", solution=True, grade=True), cell("f()"))
    release = tmp_path / "release" / "one.ipynb"
    assert TOOL.stale(folder) == [release]
    assert not release.exists(), "only looked"
    assert TOOL.stale(folder, write=True) == [release]
    code, answer, plain = nbformat.read(release, as_version=4).cells
    assert code.source == "\n".join(TOOL.CODE_STUB)
    assert code.execution_count is None
    assert code.metadata.tags == ["kept"]
    assert answer.source == TOOL.TEXT_STUB
    assert plain.source == "f()"
    assert TOOL.stale(folder) == []

    forgotten = release.with_name("forgotten.ipynb")
    forgotten.write_text("{}")
    assert TOOL.stale(folder, write=True) == [forgotten]
    assert not forgotten.exists()


@pytest.mark.parametrize(
    "wrong, said",
    [
        (cell("### BEGIN SOLUTION\n### END SOLUTION"), "no solution cell"),
        (cell("### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS", solution=True), "not graded"),
        (cell("### BEGIN SOLUTION", solution=True), "without its partner"),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, wrong: NotebookNode, said: str) -> None:
    with pytest.raises(TOOL.ExerciseError, match=said) as error:
        TOOL.stale(exercises_of(tmp_path, wrong))
    assert "one.ipynb" in str(error.value)
    assert wrong.id in str(error.value)


def test_a_folder_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TOOL.ExerciseError, match="holds no notebook"):
        TOOL.stale(tmp_path)


def test_check_says_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = exercises_of(tmp_path / "exercises", cell("1"))
    monkeypatch.setattr(TOOL, "stale", functools.partial(TOOL.stale, folder))
    monkeypatch.setattr(TOOL, "EXERCISES", folder)
    monkeypatch.setattr("sys.argv", ["make_exercises.py", "--check"])
    with pytest.raises(SystemExit, match=r"run python tools/make_exercises\.py"):
        TOOL.main()
    assert "one.ipynb is stale" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["make_exercises.py"])
    TOOL.main()
    assert "brought up to date" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["make_exercises.py", "--check"])
    TOOL.main()
    assert capsys.readouterr().out == ""
