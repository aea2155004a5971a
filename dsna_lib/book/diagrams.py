"""The paper's Fig. 2 and Fig. 3 as diagrams: what flows where, with its shape, and which way the gradient comes back.

They are SVG in the page itself; lines and letters take the page's color, so that they are read in the dark, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from dsna_lib.engine.errors import SettingError, first_few

EXPANSIVE, DISCRIMINATIVE, NEUTRAL = "#d97706", "#2563eb", "#808080"  #: the colors of the two branches, and of neither
WIDTH, FAINT, HINTED = 880, 0.25, 0.6  # of the drawing; the opacity of what is not `here`, and of its words to read
#: what `here` can point at: the parts of the decoupled structure
PARTS = ("backbone", "expansive", "discriminative", "score", "loss")
#: the steps from labels to masks: what :func:`pipeline` draws of each, and the chapters that explain it
STEPS = {
    "labels": (["pictures with", "image labels"], "chapters 1, 2"),
    "model": (["attention", "model"], "chapters 3 to 5"),
    "maps": (["maps of", "each class"], "chapter 6"),
    "annotation": (["pseudo-", "annotations"], "chapters 7 to 9"),
    "network": (["segmentation", "network"], "chapter 10"),
}


@dataclass(repr=False)
class Diagram:
    """A drawing in the page, as wide as the page; where that is narrow, it is scrolled sideways.

    Args:
        title: its name for those who do not see it.
        description: what it shows, likewise.
        body: SVG elements; x from -10 to `WIDTH` - 10, y to `height`.
        height: of the drawing.
    """

    title: str
    description: str
    body: str
    height: int

    def __repr__(self) -> str:
        return f"Diagram({self.title!r})"

    def _repr_html_(self) -> str:
        what = f"{escape(self.title)}: {escape(self.description)}"
        return (
            # Whoever has no mouse scrolls what has the focus.
            f'<div class="dsna-diagram" role="region" aria-label="{escape(self.title)}" tabindex="0" '
            'style="overflow-x:auto;margin:1em 0">'
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{what}" style="display:block;width:100%;min-width:680px;max-width:{WIDTH}px;height:auto" '
            'fill="none" stroke="currentColor" font-family="sans-serif" font-size="13">'
            f"{self.body}</svg></div>"
        )


def conventional() -> Diagram:
    """Conventional spatial attention, Eq. 1-4 (Fig. 2 of the paper): one map for all classes.

    Example:
        >>> conventional()
        Diagram('Conventional spatial attention')
    """
    top, low = 36, 140
    body = [
        *_input(low),
        _path([(212, low), (232, low), (232, top), (330, top)]),
        _box(370, top, ["1×1 conv", _i("w, b")], EXPANSIVE),
        _arrow(410, 440, top),
        _box(475, top, [f"{_i('F')} (1)"], EXPANSIVE),
        _arrow(510, 540, top),
        _box(580, top, ["÷ sum (2)"], EXPANSIVE),
        _path([(620, top), (660, top), (660, low - 16)]),
        _label(672, top - 8, f"{_i('a')}: one map, 1 × h × w", "start"),
        _arrow(212, 644, low),
        _operator(660, low, "×"),
        _label(660, low + 36, f"{_i('x̂')} (3)"),
        _arrow(676, 692, low),
        _operator(708, low, "Σ"),
        _arrow(724, 736, low),
        _box(768, low, ["linear", _i("v, h")], NEUTRAL, 60),
        _arrow(798, 822, low),
        _vector(832, low),
        _label(832, low + 46, f"{_i('p')} (4)"),
        _label(832, low + 62, "C scores"),
    ]
    told = (
        "a picture passes the backbone, which gives features X of D channels on a grid of h by w. A branch of a 1 by 1 "
        "convolution, F and a division by the sum turns them into one attention map a. It multiplies the features, "
        "whose sum over the grid is scored by a linear classifier: C scores p."
    )
    return Diagram("Conventional spatial attention", told, "".join(body), 225)


def decoupled(here: str | Iterable[str] = PARTS, gradients: bool = False) -> Diagram:
    """The decoupled structure, Eq. 5-10 (Fig. 3 of the paper): two maps for each class.

    Args:
        here: the parts that are drawn at full strength, of :data:`PARTS`; the others are faint.
        gradients: also draw what each branch is told by the loss, as dashed arrows.

    Raises:
        SettingError: no such part.

    Example:
        >>> decoupled(here="expansive")
        Diagram('The decoupled structure')
    """
    strong = {here} if isinstance(here, str) else set(here)
    if unknown := strong - set(PARTS):
        raise SettingError(f"here={first_few(sorted(unknown), 3)}: choose among {', '.join(PARTS)}")
    top, middle, low = 62, 155, 248
    parts = {
        "backbone": _input(middle),
        "expansive": [
            _path([(212, middle), (226, middle), (226, top), (244, top)], EXPANSIVE),
            _label(226, top - 36, "E-A detector", "start"),
            _box(282, top, ["dropout"], EXPANSIVE, dashed=True),
            _arrow(320, 336, top, EXPANSIVE),
            _box(374, top, ["1×1 conv", f"{_of_class('w', -3)}, {_of_class('b', 8)}"], EXPANSIVE),
            _arrow(412, 428, top, EXPANSIVE),
            _box(466, top, ["dropout"], EXPANSIVE, dashed=True),
            _arrow(504, 520, top, EXPANSIVE),
            _box(552, top, [f"{_i('F')} (5, 7)"], EXPANSIVE, 64),
            _arrow(584, 598, top, EXPANSIVE),
            _box(635, top, ["÷ sum (6)"], EXPANSIVE, 74),
            _arrow(672, 686, top, EXPANSIVE),
            _stack(704, top, 3, EXPANSIVE),
            _label(734, top - 14, f"{_i('a')}, expansive", "start"),
            _label(734, top + 3, "C × h × w", "start"),
            _path([(712, top + 26), (712, middle - 16)], EXPANSIVE),
        ],
        "discriminative": [
            _path([(226, middle), (226, low), (336, low)], DISCRIMINATIVE),
            _label(226, low + 46, "D-A detector", "start"),
            _box(374, low, ["1×1 conv", f"{_of_class('v', -3)}, {_of_class('h', 0)}"], DISCRIMINATIVE),
            _arrow(412, 684, low, DISCRIMINATIVE),
            _stack(704, low, 3, DISCRIMINATIVE),
            _label(734, low + 5, f"{_i('s')}, discriminative", "start"),
            _label(734, low + 22, "C × h × w", "start"),
            _path([(712, low - 26), (712, middle + 16)], DISCRIMINATIVE),
        ],
        "score": [
            _operator(712, middle, "×"),
            _label(690, middle + 5, "(8)", "end"),
            _arrow(728, 742, middle),
            _operator(758, middle, "Σ"),
            _label(758, middle - 22, "(9)"),
            _arrow(774, 788, middle),
            _vector(798, middle),
            _label(798, middle + 46, f"{_i('p')}: C scores"),
        ],
        "loss": [
            _arrow(806, 826, middle),
            _label(836, middle + 5, f"{_i('L')}"),
            _label(836, middle + 22, "(10)"),
            _path([(836, middle - 44), (836, middle - 12)]),
            _label(836, middle - 50, f"labels {_i('y')}"),
        ],
    }
    body = [
        f'<g opacity="{1 if part in strong else FAINT}">{"".join(elements)}</g>' for part, elements in parts.items()
    ]
    if gradients:
        up, down = (
            "∂p/∂z = (s − p) / Σz: is a location better than the average?",
            "∂p/∂s = a: as much as it is attended",
        )
        body += [_back(690, 250, top + 44, up, EXPANSIVE), _back(690, 250, low - 44, down, DISCRIMINATIVE)]
    told = (
        "a picture passes the backbone, which gives features X of D channels on a grid of h by w. Two branches read "
        "them. The expansive one, E-A, is dropout, a 1 by 1 convolution, dropout, F and a division by the sum: "
        "attention a, a map for each of C classes. The discriminative one, D-A, is a 1 by 1 convolution: scores s, "
        "a map for each class. Their product, summed over the grid, is a score p for each class, which the loss "
        "compares with the image labels y."
    )
    if gradients:
        told += " Dashed arrows lead back: to s with weight a, to z with s minus p, divided by the sum of z."
    return Diagram("The decoupled structure", told, "".join(body), 305)


def pipeline(here: str) -> Diagram:
    """The way from image labels to a segmentation network in five steps, and which of them a chapter is about.

    Args:
        here: one of :data:`STEPS`.

    Raises:
        SettingError: no such step.

    Example:
        >>> pipeline(here="maps")
        Diagram('Where this chapter stands')
    """
    if here not in STEPS:
        raise SettingError(f"here={here}: choose among {', '.join(STEPS)}")
    body = []
    for k, (step, (lines, chapters)) in enumerate(STEPS.items()):
        x = 75 + 178 * k
        if k:
            body.append(_arrow(x - 118, x - 62, 28))
        drawn = _box(x, 28, lines, EXPANSIVE if step == here else NEUTRAL, 116) + _label(x, 68, chapters)
        body.append(f'<g opacity="{1 if step == here else HINTED}">{drawn}</g>')
    said = [f"{' '.join(lines).replace('- ', '-')} ({chapters})" for lines, chapters in STEPS.values()]
    told = f"five steps, {', '.join(said)}. This chapter is about the step {list(STEPS).index(here) + 1}."
    return Diagram("Where this chapter stands", told, "".join(body), 78)


# --- what they are drawn of -------------------------------------------------------------------------------------------


def _i(letters: str) -> str:
    return f'<tspan font-style="italic">{letters}</tspan>'


def _of_class(letter: str, rise: int) -> str:
    """With a small c below (a negative `rise`) or above."""
    return f'{_i(letter)}<tspan font-size="9" dy="{-rise}">c</tspan>'


def _input(y: int) -> list[str]:
    """Picture, backbone and features, up to x = 212."""
    hills = f'<path d="M6 {y + 24} L24 {y + 2} L36 {y + 16} L44 {y + 7} L56 {y + 24}"/>'
    cone = f'<path d="M74 {y - 34} L146 {y - 18} V{y + 18} L74 {y + 34} Z" fill="{NEUTRAL}" fill-opacity=".15"/>'
    return [
        f'<rect x="6" y="{y - 25}" width="50" height="50"/><circle cx="22" cy="{y - 14}" r="5"/>{hills}',
        _label(31, y + 44, "picture"),
        _label(31, y + 60, "3 × H × W"),
        _arrow(56, 74, y),
        cone,
        _label(110, y + 5, "backbone"),
        _arrow(146, 166, y),
        _stack(184, y, 5, NEUTRAL),
        _label(188, y + 46, _i("X")),
        _label(188, y + 62, "D × h × w"),
    ]


def _label(x: int, y: int, text: str, anchor: str = "middle") -> str:
    """Words in the page's color: the branches' own are too weak to be read on some pages."""
    return f'<text x="{x}" y="{y}" fill="currentColor" stroke="none" text-anchor="{anchor}">{text}</text>'


def _box(x: int, y: int, lines: list[str], color: str, width: int = 76, dashed: bool = False) -> str:
    """A layer, around (x, y); dropout, which acts in training only, has a dashed outline."""
    outline = ' stroke-dasharray="4 3"' if dashed else ""
    first = y + 5 - 8 * (len(lines) - 1)
    text = "".join(_label(x, first + 16 * k, line) for k, line in enumerate(lines))
    shape = f'x="{x - width // 2}" y="{y - 20}" width="{width}" height="40" rx="4"'
    return f'<rect {shape} fill="{color}" fill-opacity=".15" stroke="{color}"{outline}/>{text}'


def _stack(x: int, y: int, sheets: int, color: str) -> str:
    """Maps, one behind the other."""
    return "".join(
        f'<rect x="{x - 16 + 3 * k}" y="{y - 18 + 3 * k}" width="30" height="30" fill="{color}" fill-opacity=".2" '
        f'stroke="{color}"/>'
        for k in range(sheets)
    )


def _vector(x: int, y: int) -> str:
    return "".join(f'<rect x="{x - 8}" y="{y - 28 + 14 * k}" width="16" height="14"/>' for k in range(4))


def _operator(x: int, y: int, sign: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="15"/>' + _label(x, y + 5, sign)


def _arrow(x0: int, x1: int, y: int, color: str = "") -> str:
    return _path([(x0, y), (x1, y)], color)


def _path(points: list[tuple[int, int]], color: str = "", extra: str = "") -> str:
    """A line with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    along = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)  # horizontal or vertical
    back, side = (x1 - 6 * along[0], y1 - 6 * along[1]), (4 * along[1], 4 * along[0])
    head = f"M{back[0] - side[0]} {back[1] - side[1]} L{x1} {y1} L{back[0] + side[0]} {back[1] + side[1]}"
    line = "M" + " L".join(f"{x} {y}" for x, y in points)
    paint = f' stroke="{color}"' if color else ""
    return f'<path d="{line}"{paint}{extra}/><path d="{head}"{paint}/>'


def _back(x0: int, x1: int, y: int, text: str, color: str) -> str:
    """A dashed arrow to the left with its words."""
    return _path([(x0, y), (x1, y)], color, ' stroke-dasharray="6 4"') + _label((x0 + x1) // 2, y - 6, text)
