"""Examples of recommendation: a history of items, and the item that follows as the label.

The classes are all items of the data, not only those that are labels, so that a model ranks the whole catalogue.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hf_finetune.errors import InputError, Problem, counted, join_quoted, join_words, short_repr
from hf_finetune.fields.times import parse_time
from hf_finetune.tasks.columns import ColumnRole, find_columns_by_name
from hf_finetune.tasks.event_rows import check_columns, format_date, read_customers, read_times
from hf_finetune.tasks.examples import ExampleError, JoinedRows
from hf_finetune.tasks.items.history import item_word, read_items
from hf_finetune.tasks.items.stored import text_form

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["NEW_ITEM", "declare_items", "histories_of", "join_log", "read_log"]

LABEL_NAMES = ("label", "next_item", "next", "item", "target")
"""Usual names of the column of the next item."""
NEXT_ITEM, NEW_ITEM = "next_item", "new_item"
"""Columns of joined rows: the label, and whether the training split lacks it (yes, no)."""
ROLES = ("customer", "time", "item")


def read_log(rows: "Mapping[str, Sequence[Any]]", columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return the events of a table, sorted by customer and time; those of one time stay in the order of the rows.

    Args:
        rows: Columns of the table.
        columns: Names of the columns ``customer``, ``time`` and ``item``.

    Returns:
        Columns ``customer``, ``time`` (seconds since 1970) and ``item``.

    Raises:
        InputError: If a column is missing, or a value is no customer, time or item.
    """
    check_columns(rows, columns, ROLES, ())
    log = pd.DataFrame(
        {
            "customer": read_customers(rows[columns["customer"]]),
            "time": read_times(rows[columns["time"]]),
            "item": _words(rows[columns["item"]], "data.columns.item"),
        }
    )
    return log.sort_values(["customer", "time"], kind="stable")


def join_log(splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any) -> JoinedRows:
    """Join a table with one row per event to the histories of customers, divided by ``data.split.time``.

    The label of a test example is the last item of a customer with an event from the date on; the history has all items
    before it. Training and validation examples contain only events before the date: the label of a validation example
    is the customer's last item, that of a training example the one before, or the last one where the recipe asks for no
    validation split. Thus nothing in training is later than the label that it is tested on.

    Args:
        splits: The table as loaded.
        columns: Column names by role, as in a recipe.
        data: ``data`` of the recipe.

    Returns:
        The examples of each split.

    Raises:
        InputError: If the table or the fields cannot be used.
    """
    if set(splits) != {"train"}:
        rule = "must be one table if it has one row per event: it is divided by data.split.time"
        raise InputError(Problem("data.path", rule, join_quoted(splits)))
    if problems := list(_unused_columns(columns)):
        raise InputError(problems)
    log = read_log(splits["train"][:], columns)
    span = f"events from {format_date(log['time'].min())} to {format_date(log['time'].max())}"
    if data.split.time is None:
        rule, fix = (
            "must be set for a table with one row per event",
            "Items from this date on test the model.",
        )
        raise InputError(Problem("data.split.time", rule, span, fix))
    date = parse_time(data.split.time)
    parts = _divided(log, date, has_validation=data.split.validation > 0)
    if any(parts[split].empty for split in ("train", "test") if split in parts):
        side = "before" if parts["train"].empty else "of which one is from"
        rule = f"must leave a customer with several events {side} it"
        raise InputError(Problem("data.split.time", rule, f"{data.split.time}, with {span}"))
    known = _items_of(parts["train"])
    others = set().union(*(_items_of(part) for part in parts.values())) - known
    names = [*sorted(known), *sorted(others)]
    tables = {split: _dataset(part, known, names) for split, part in parts.items()}
    sources = {role: columns[role] for role in ROLES}
    note = _note(log, parts, data.split.time, int((~parts["test"][NEXT_ITEM].isin(known)).sum()))
    return JoinedRows(
        *(tables, {"items": "items", "label": NEXT_ITEM}, sources), notes=(note,), is_divided=True
    )


def _divided(log: pd.DataFrame, date: float, *, has_validation: bool) -> dict[str, pd.DataFrame]:
    """Return the examples of each split: customer, history and next item."""
    rows: dict[str, list[tuple[str, list[str]]]] = {"train": [], "validation": [], "test": []}
    for customer, events in log.groupby("customer", sort=False):
        items = events["item"].tolist()
        before = int((events["time"] < date).sum())
        if before < len(items):
            rows["test"].append((customer, items))
        past = items[:before]
        holds_out = has_validation and before > 2
        if holds_out:
            rows["validation"].append((customer, past))
        rows["train"].append((customer, past[:-1] if holds_out else past))
    if not rows["validation"]:
        del rows["validation"]
    return {split: _last_items(part) for split, part in rows.items()}


def _last_items(sequences: Iterable[tuple[str, list[str]]]) -> pd.DataFrame:
    """Return the last item of each customer with several items, and the text form of the others."""
    rows = [(customer, " ".join(items[:-1]), items[-1]) for customer, items in sequences if len(items) > 1]
    return pd.DataFrame(rows, columns=["customer", "items", NEXT_ITEM])


def _note(log: pd.DataFrame, parts: Mapping[str, pd.DataFrame], date: str, new: int) -> str:
    """Return a message on the examples of each split."""
    counts = join_words(f"{len(part):,} {split}" for split, part in parts.items())
    return (
        f"One row per event: {len(log):,} events of {log['customer'].nunique():,} customers with "
        f"{log['item'].nunique():,} items, joined to {counts} examples. A test label is a customer's last item from "
        f"{date} on, a validation label the last one before; training sees only what is earlier than these. "
        f"{counted(new, 'test label')} {'is' if new == 1 else 'are'} not among the items of training (column "
        f"{NEW_ITEM})."
    )


def _unused_columns(columns: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of each column that a table with one row per event has no use for."""
    fixes = {
        "items": "Histories are joined from its rows; a table of histories needs no data.columns.customer.",
        "label": "The label is an item of each customer.",
        "weight": "The rows of a customer are one example, which has no weight.",
    }
    for role, fix in fixes.items():
        if columns.get(role) is not None:
            rule = "must not be set for a table with one row per event"
            yield Problem(f"data.columns.{role}", rule, short_repr(columns[role]), fix)


def _items_of(examples: pd.DataFrame) -> set[str]:
    """Return the items of the histories and labels of examples."""
    return {item for text in examples["items"] for item in text.split()} | set(examples[NEXT_ITEM])


def _dataset(examples: pd.DataFrame, known: set[str], names: Sequence[str]) -> "Dataset":
    """Return examples as a dataset whose labels declare all items as classes."""
    from datasets import ClassLabel, Dataset, Features, Value

    columns = {name: examples[name].tolist() for name in ("customer", "items", NEXT_ITEM)}
    columns[NEW_ITEM] = _is_new(examples[NEXT_ITEM], known)
    texts = {name: Value("string") for name in ("customer", "items", NEW_ITEM)}
    return Dataset.from_dict(columns, features=Features({**texts, NEXT_ITEM: ClassLabel(names=list(names))}))


def _is_new(items: Iterable[str | None], known: set[str]) -> list[str]:
    return ["yes" if item is not None and item not in known else "no" for item in items]


def histories_of(log: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield each customer with the text form of all its items.

    Args:
        log: Events from ``read_log``.
    """
    for customer, events in log.groupby("customer", sort=False):
        yield str(customer), " ".join(events["item"])


def declare_items(
    splits: "Mapping[str, Dataset]", role: ColumnRole, columns: Mapping[str, Any]
) -> JoinedRows | None:
    """Return tables of histories whose label column declares all items as classes, those of training first.

    Args:
        splits: Tables as loaded.
        role: Role of the histories.
        columns: Column names by role, as in a recipe.

    Returns:
        The tables with the column ``NEW_ITEM``; None if they have no columns of histories and labels, or if a label is
        no item, which is reported where they are read.
    """
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
    label = columns.get("label")
    if label is None:
        label = next((name for name in LABEL_NAMES if name in train.column_names), None)
    if not isinstance(label, str) or label not in train.column_names:
        return None
    taken = (label, *(columns.get(name) for name in ("group", "weight", "time")))
    named = {role.name: columns[role.name]} if columns.get(role.name) else {}
    found, problems = find_columns_by_name((role,), train.features, named, taken)
    items = found[role.name]
    present = [dataset.column_names for dataset in splits.values()]
    if problems or items is None or not all(items in names and label in names for names in present):
        return None
    try:
        labels = {split: _labels(dataset, label) for split, dataset in splits.items()}
    except ExampleError:
        return None
    by_split = {split: _catalogue(dataset[items], labels[split]) for split, dataset in splits.items()}
    known = by_split.get("train", set())
    others = set().union(*by_split.values()) - known
    names = [*sorted(known), *sorted(others)]
    declared = {
        split: _with_labels(dataset, label, labels[split], names, known) for split, dataset in splits.items()
    }
    time = columns.get("time")
    return JoinedRows(declared, {role.name: items, "label": label, **_kept(columns)}, {}, time)


def _kept(columns: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that joining does not change."""
    return {name: columns[name] for name in ("group", "weight", "split") if columns.get(name) is not None}


def _labels(dataset: "Dataset", label: str) -> list[str | None]:
    """Return the next item of each example; None for a missing one."""
    from datasets import ClassLabel

    feature, values = dataset.features[label], dataset[label][:]
    if isinstance(feature, ClassLabel):
        values = [feature.names[value] if value is not None and value >= 0 else None for value in values]
    return [None if value is None or value == "" or value != value else item_word(value) for value in values]


def _catalogue(histories: Iterable[Any], labels: Iterable[str | None]) -> set[str]:
    items = {label for label in labels if label is not None}
    for cell in histories:
        text = text_form(cell)
        try:
            items |= set(read_items(text).split())
        except ExampleError:
            continue  # reported as an unusable example
    return items


def _with_labels(
    dataset: "Dataset", label: str, labels: Sequence[str | None], names: Sequence[str], known: set[str]
) -> "Dataset":
    from datasets import ClassLabel, Dataset, Features, concatenate_datasets

    feature = Features({label: ClassLabel(names=list(names))})
    column = Dataset.from_dict({label: labels}, features=feature)
    others = [name for name in dataset.column_names if name not in (label, NEW_ITEM)]
    added = Dataset.from_dict({NEW_ITEM: _is_new(labels, known)})
    return concatenate_datasets([dataset.select_columns(others), column, added], axis=1)


def _words(items: Sequence[Any], place: str) -> list[str]:
    """Return the words of items, each distinct one checked once."""
    known: dict[Any, str] = {}
    words = []
    for row, item in enumerate(items):
        if item not in known:
            try:
                known[item] = item_word(item)
            except ExampleError as error:
                rule = "must name an item in each row"
                raise InputError(Problem(place, rule, f"row {row}: {error}")) from None
        words.append(known[item])
    return words
