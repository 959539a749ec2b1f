"""Interface of a modality: how its examples are stored in data, found, checked and compared."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import Problem
from hf_finetune.tasks.columns import ColumnRole
from hf_finetune.tasks.examples import ExampleCheck, JoinedRows
from hf_finetune.tasks.presentation import Presentation

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = ["StoredData"]


class StoredData(Presentation):
    """Columns and examples of a modality in data.

    Attributes:
        label_columns: Usual names of the label column, in lower case; empty for those of classes and numbers.
        opens_files: Whether an example is a file that is opened at each access; False if it is loaded as text.
        row_roles: Further columns of a table in which an example has several rows, see ``join_rows``; a table
            has such rows if it has the first of these columns, and ``time`` is another.
        divides_rows: Whether joined rows are always divided into splits, whatever ``data.split`` says of shares.
        row_settings: Names of further values, besides columns, with which such rows are joined in predictions, as
            ``JoinedRows.sources`` has them.
        group_role: Role of the column that groups the examples, such as the query of candidates: those of a group stay
            in one split, and are resampled together; empty if the recipe may name any column.
        has_rare_classes: Whether most classes have few examples, so that splits are not stratified by class.
        synthetic_classes: Class names for checks without data.
    """

    label_columns: ClassVar[tuple[str, ...]] = ()
    opens_files: ClassVar[bool] = False
    row_roles: ClassVar[tuple[ColumnRole, ...]] = ()
    divides_rows: ClassVar[bool] = False
    row_settings: ClassVar[tuple[str, ...]] = ()
    group_role: ClassVar[str] = ""
    has_rare_classes: ClassVar[bool] = False
    synthetic_classes: ClassVar[tuple[str, ...]] = ("0", "1")

    @abstractmethod
    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return a row of loaded data in the form that a pipeline takes."""

    # Columns of data

    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find the columns of the examples by name and type.

        Args:
            features: Columns of the data and their types.
            named: Columns that the user named, by role.
            taken: Columns with another role, such as label or group.

        Returns:
            Column of each role (None for an optional role without one), and problems.
        """
        from hf_finetune.tasks.columns import find_columns_by_name

        return find_columns_by_name(self.roles, features, named, taken)

    def unreadable_files(self, place: str, files: Iterable[Any]) -> list[Problem]:
        """Return a problem for files in a format that must be converted before it can be read.

        Args:
            place: Location of the problems.
            files: Paths of all files in a folder.
        """
        return []

    def second_column_names(self, name: str) -> tuple[str, ...]:
        """Return the usual names of the optional column that belongs to a main column of this name."""
        return ()

    def has_rows(self, names: Sequence[str], columns: Mapping[str, Any]) -> bool:
        """Return whether an example of a table has several rows, see ``join_rows``.

        Args:
            names: Columns of the table.
            columns: Column names by role, as in a recipe.
        """
        return any(columns.get(role.name) is not None for role in self.row_roles)

    def claims(self, dataset: "Dataset") -> bool:
        """Return whether a table is so clearly of this modality that only its tasks are tried.

        Args:
            dataset: Table as loaded, of which nothing is known.
        """
        return False

    def guess_rows(self, dataset: "Dataset") -> Mapping[str, Any]:
        """Return fields of ``data`` for a table in which an example has several rows; empty if it is none.

        Args:
            dataset: Table as loaded, of which nothing is known.
        """
        return {}

    def may_hold_examples(self, cells: Sequence[Any]) -> bool:
        """Return whether a column may be guessed to contain the examples of the modality.

        Args:
            cells: Some cells of a column of a type that the modality reads.
        """
        return True

    def join_rows(
        self, splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any
    ) -> JoinedRows | None:
        """Join the rows of a table in which an example has several rows; None if each row is an example.

        Args:
            splits: Tables as loaded.
            columns: Column names by role, as in a recipe.
            data: ``data`` of the recipe.

        Returns:
            The examples with their columns, or None.

        Raises:
            InputError: If the table cannot be joined.
        """
        return None

    def join_prediction_rows(
        self, rows: Mapping[str, Sequence[Any]], columns: Mapping[str, Any], decimal: str | None
    ) -> "Iterable[tuple[str, Mapping[str, Any] | Problem]]":
        """Return the examples of a table in which an example has several rows, to predict them.

        Args:
            rows: Columns of the table.
            columns: Column names by role, among them those of ``row_roles`` and ``time``.
            decimal: Decimal mark of numbers that are text; None is a point.

        Returns:
            Id and cells of each example; cells of other columns than those of the modality are written beside the
            prediction. Or the id and the problem of an example that cannot be used.

        Raises:
            InputError: If the table cannot be joined.
        """
        return ()

    # Stored examples

    @abstractmethod
    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return the feature type of each role in loaded data.

        Args:
            decode: Whether rows contain the decoded example; False gives the path or the bytes of its file.
        """

    def stored_form(self, inputs: "Dataset") -> "Dataset":
        """Return the columns of the examples in the types of ``features``.

        Args:
            inputs: Columns of the roles, as loaded; for a modality that does not open files.
        """
        from datasets import Features

        types = self.features()
        features = Features({name: types[name] for name in inputs.column_names})
        # large strings, or the untyped column of a split without a text, are converted
        return inputs if inputs.features == features else inputs.cast(features, keep_in_memory=True)

    def check(self) -> ExampleCheck:
        """Return a new check of examples, which reads each of them once."""
        from hf_finetune.tasks.stored import ReadCheck

        return ReadCheck(self.pipeline_input)

    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return two hashes of each example, without decoding it.

        Args:
            dataset: Dataset with the columns of the roles.

        Returns:
            SHA-256 of the exact content, and a key that is equal for copies; None for an example that cannot be
            compared. The two differ only for texts, whose copies may differ in case and white space.
        """
        from hf_finetune.tasks.stored import hash_file, hash_rows, map_files

        if not self.opens_files:
            hashes: list[str | None] = [*hash_rows(dataset, self.columns_in(dataset.column_names))]
            return hashes, hashes
        feature = self.features(decode=False)[self.main_column]
        contents = tuple(map_files(dataset, self.main_column, feature, hash_file))
        return contents, contents

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the rows on which a model is most likely to fail: the longest, the largest.

        Args:
            dataset: Dataset with the columns of the roles.
            lengths: Number of tokens of each example, if known.
        """
        return [] if lengths is None else [max(range(len(lengths)), key=lengths.__getitem__)]

    @abstractmethod
    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return synthetic examples, for checks without data.

        Args:
            count: Number of examples.
            rng: Instance of ``random.Random``.
            length: Length of the longest example, if the modality has lengths, in words.
            pair: Whether optional columns are filled too.

        Returns:
            Values of each column.
        """
