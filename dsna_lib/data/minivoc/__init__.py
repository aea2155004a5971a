"""The embedded data set: drawn animals in the PASCAL VOC layout, the same on every machine for a seed.

**What it is for.** Weakly supervised segmentation asks two things of an attention map: does it *find the part* that
tells the class, and does it *cover the whole object*? No real data set has a ground truth for both. Here each animal
has one small part, about a tenth of its area, that tells its class for certain, and a large body that only suggests it:
shape, colors and pose are those of the family, and the texture is the usual one of the class on 78 of 100 animals (70,
and a quarter of the other 30, whose texture is drawn from all four).

=========  ======================================================================================================
family     classes, with their discriminative parts and their usual textures
=========  ======================================================================================================
mammals    rabbit (ears; fur), deer (antlers; spots), lion (mane; stripes), elephant (trunk and ear; scales)
birds      rooster (comb, wattle; fur), toucan (beak; spots), owl (face with tufts; stripes)
fish       shark (back fin and teeth; fur), swordfish (sword; spots), anglerfish (lantern; stripes)
=========  ======================================================================================================

Photographs are like that: an ear proves the cat, and its fur, which many animals have, makes it likely. If the body
said nothing about the class, a classifier would have no reason to look at it, and no attention map would cover it.

So every picture comes with a class mask and a *part* mask. One to three animals of one or several classes overlap on a
cluttered background that says nothing about the class; sizes are about log-uniform from 1 % to 60 % of the picture.

**What it is not.** A stage set, built so that the paper's question shows. Numbers measured on it say how a method
behaves under known conditions; verdicts on the paper come from real pictures.

**How a picture is made.** A picture is a canvas, four times finer than the result, of *paint numbers*; each paint knows
its color, its animal and whether it belongs to a discriminative part. One lookup in one canvas thus yields the picture
and both masks. Animals are polygons in their own coordinates (x to the nose, y down, the body about one unit in
radius).

**Why it is the same everywhere.** Chance comes from the raw stream of PCG64, which NumPy guarantees; the distributions
on top of it may change between releases, so they are not used. Coordinates are rounded to integers before any pixel is
decided, polygons are filled in integer arithmetic here and not by a drawing library, and files are lossless.

Example:
    >>> picture = draw(0, index=0, size=224)
    >>> picture.image.shape == picture.mask.shape + (3,) == picture.part.shape + (3,)
    True
    >>> all(0 <= label < len(CLASS_NAMES) for label in picture.labels)
    True
"""

from dsna_lib.data.minivoc.animals import CLASS_NAMES, FAMILIES
from dsna_lib.data.minivoc.canvas import VERSION
from dsna_lib.data.minivoc.files import SPLITS, cache_folder, load, make
from dsna_lib.data.minivoc.help_files import changed_help, make_help
from dsna_lib.data.minivoc.scene import VOID, Drawing, draw

__all__ = [
    "CLASS_NAMES",
    "FAMILIES",
    "SPLITS",
    "VERSION",
    "VOID",
    "Drawing",
    "cache_folder",
    "changed_help",
    "draw",
    "load",
    "make",
    "make_help",
]
