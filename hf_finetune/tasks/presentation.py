"""Names, nouns for messages, and pages of a modality."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.tasks.columns import ColumnRole
from hf_finetune.tasks.examples import PreviewRow

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Presentation"]


class Presentation(ABC):
    """Names and words of a modality, and the pages that show its examples.

    Attributes:
        name: Name, such as ``image``.
        roles: Columns of an example. The first one is required.
        model_inputs: Names of the inputs that a model's ``forward`` may take, the main one first.
    """

    name: ClassVar[str]
    roles: ClassVar[tuple[ColumnRole, ...]]
    model_inputs: ClassVar[tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the column roles."""
        return tuple(role.name for role in self.roles)

    @property
    def main_column(self) -> str:
        """Required column."""
        return self.roles[0].name

    @property
    def main_inputs(self) -> tuple[str, ...]:
        """Names that the main input has, one for each kind of model."""
        return self.model_inputs[:1]

    def main_input_in(self, names: Iterable[str]) -> str:
        """Return the main input that is among the given names of model inputs.

        Args:
            names: Names of model inputs.

        Raises:
            ValueError: If there is none.
        """
        present = set(names)
        for name in self.main_inputs:
            if name in present:
                return name
        raise ValueError(f"no input for {self.plural} has one of these names: {', '.join(sorted(present))}")

    @property
    def suffixes(self) -> frozenset[str]:
        """Lower-case suffixes of files with one example each."""
        return frozenset()

    def columns_in(self, names: Iterable[str]) -> list[str]:
        """Return the columns of an example that are among the given names, in the order of the roles."""
        present = set(names)
        return [name for name in self.columns if name in present]

    # Words for messages

    @property
    def plural(self) -> str:
        """Noun for several examples, such as ``images``."""
        return f"{self.name}s"

    @property
    def article(self) -> str:
        """Noun for one example with its article, such as ``an image``."""
        return f"a {self.name}"

    @property
    def readable(self) -> str:
        """Noun for the required content of a row, such as ``a readable image``."""
        return f"a readable {self.name}"

    @property
    def file_noun(self) -> str:
        """Noun for a file with one example, such as ``picture``."""
        return self.name

    @property
    def plural_files(self) -> str:
        """Noun for several such files, such as ``pictures``."""
        return f"{self.file_noun}s"

    def format_size(self, batch: Mapping[str, Any]) -> str:
        """Return the size of the examples of a batch in words, such as ``38 tokens``."""
        return " x ".join(map(str, batch[self.main_input_in(batch)].shape[1:]))

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the sizes of stored examples in words: ``Median size 640 x 480 pixels.``; empty if unknown.

        Args:
            dataset: Dataset with the columns of the roles.
        """
        return ""

    def draft_fields(self, dataset: "Dataset") -> Mapping[str, tuple[Any, str]]:
        """Return the fields of ``data`` that a recipe written for new data sets, each with its value and a comment.

        Args:
            dataset: Training split with the columns of the roles.
        """
        return {}

    @property
    def searched_augmentations(self) -> tuple[Any, ...]:
        """Values of ``data.augment`` that a search tries besides that of ``draft_fields``."""
        return ()

    # Previews

    @property
    def preview_suffixes(self) -> tuple[str, ...]:
        """Suffixes of files that a preview can be written to, the usual one first."""
        return (".html", ".htm")

    def write_preview(self, rows: "Sequence[PreviewRow]", path: Path, title: str, suffix: str) -> None:
        """Write original examples and their views (augmented versions) to a file.

        Args:
            rows: Examples as ``preview_example`` and ``preview_inputs`` return them.
            path: File to write.
            title: Title of the page.
            suffix: Suffix of the final name of the file, which determines its format.
        """
        from hf_finetune.tasks.preview_page import text_page

        path.write_text(text_page(rows, title), encoding="utf-8")

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return an example of loaded data in a form that ``write_preview`` shows."""
        return self.show(row)["text"]

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the model inputs of an example in a form that ``write_preview`` shows."""
        name = self.main_input_in(inputs)
        return self.format_size({name: inputs[name][None]})

    # Pages

    def show(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return a row of loaded data for an HTML page: ``text``, or ``image`` or ``audio`` as a data URI."""
        return {"text": str(row.get("id", ""))}

    def show_answer(self, row: Mapping[str, Any], label: Any, scores: Any) -> dict[str, str]:
        """Return a row of loaded data with the answer of a model, as ``show`` does.

        Args:
            row: Row of loaded data.
            label: Label, as metrics take it.
            scores: Scores of the example, with a first dimension of 1.
        """
        return self.show(row)

    def example_code(self, *, pair: bool) -> str:
        """Return the argument of a call of a pipeline in Python, for model cards.

        Args:
            pair: Whether examples have the optional column.
        """
        return f'"{self.file_noun}{min(self.suffixes, default="")}"'

    @property
    def usage_note(self) -> str:
        """Sentences below the code of ``example_code`` in model cards; empty for none."""
        return ""

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return the gradio components in which the user enters an example, one for each column.

        Args:
            gradio: The module.
            pair: Whether examples have the optional column.
        """
        return [gradio.File(type="filepath", label=self.file_noun.capitalize())]

    @abstractmethod
    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return an example, as ``pipeline_input`` returns it, as the value of each of the ``demo_components``.

        Args:
            example: The example.
            path: Path, without a suffix, of a file that may be written.
        """

    @property
    def space_code(self) -> Path:
        """Python file with the fields of a Space's page, which the ``app.py`` of the Space imports."""
        return Path(__file__).with_name("space_fields.py")

    def space_settings(self, processor: Any, *, pair: bool) -> dict[str, Any]:
        """Return the settings that ``space_code`` reads.

        Args:
            processor: Preprocessor of the model.
            pair: Whether examples have the optional column.
        """
        return {}
