"""Fields of ``data`` in recipes for queries with candidates."""

from typing import Annotated

from pydantic import Field

from hf_finetune.tasks.text.fields import TextFields

__all__ = ["RankingFields"]


class RankingFields(TextFields):
    """Length of the texts, and the lists of the listwise loss."""

    list_size: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Maximum number of candidates of a query that are trained together by the listwise loss, a softmax "
        "over them (Bruch et al. 2019); batch_size then counts queries. Of more candidates, a relevant one and random "
        "others are drawn in each epoch. null = the pointwise loss, the cross-entropy of each pair on its own.",
    )
