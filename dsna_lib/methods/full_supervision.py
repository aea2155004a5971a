"""Full supervision: the network learns from the true masks. The ceiling of which every other row is a share."""

from __future__ import annotations

from dataclasses import dataclass

from dsna_lib.methods.base import Help, Stage


@dataclass(frozen=True)
class FullSupervision:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "full supervision"
    needs: frozenset[Help] = frozenset({"labels", "masks"})
    paper: float | None = None
    trains: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> None:
        """It learns from the masks themselves."""

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


FULL_SUPERVISION = FullSupervision()
