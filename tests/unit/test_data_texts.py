import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from hf_finetune.errors import InputError
from hf_finetune.tasks.text.tokenization import resolve_max_length, tokenize

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "one", "two", "three", "four", "five"]
PAD, CLS, SEP, UNK, ONE, TWO, THREE, FOUR, FIVE = range(9)


def tokenizer(**options):
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", **options)


def texts(label=1, feature=None, **columns):
    count = len(columns["text"])
    features = Features({name: Value("string") for name in ("id", *columns)})
    features["label"] = feature or ClassLabel(names=["a", "b"])
    rows = {"id": [str(row) for row in range(count)], **columns, "label": [label] * count}
    return Dataset.from_dict(rows, features=features)


def test_one_text_is_cut_at_the_right_and_not_padded():
    result = tokenize(texts(text=["one two three", "four"]), tokenizer(), max_length=4)
    assert result["input_ids"][:] == [[CLS, ONE, TWO, SEP], [CLS, FOUR, SEP]]
    assert result["labels"][:] == [1, 1]
    assert "label" not in result.column_names
    assert "id" not in result.column_names


def test_cut_at_the_left_without_changing_the_tokenizer():
    given = tokenizer()
    result = tokenize(texts(text=["one two three"]), given, max_length=4, truncation_side="left")
    assert result["input_ids"][0] == [CLS, TWO, THREE, SEP]
    assert given.truncation_side == "right"
    assert given("one two three")["input_ids"] == [CLS, ONE, TWO, THREE, SEP]


def test_a_pair_loses_its_longer_text_first():
    pair = texts(text=["one two three four"], text_pair=["five"])
    result = tokenize(pair, tokenizer(), max_length=6)
    assert result["input_ids"][0] == [CLS, ONE, TWO, SEP, FIVE, SEP]


def test_the_collator_pads_a_batch_to_its_longest():
    given = tokenizer()
    result = tokenize(texts(text=["one two three", "four"]), given)
    batch = DataCollatorWithPadding(given)([dict(row) for row in result])
    assert batch["input_ids"].tolist() == [[CLS, ONE, TWO, THREE, SEP], [CLS, FOUR, SEP, PAD, PAD]]
    assert batch["labels"].tolist() == [1, 1]


def test_sets_of_classes_become_zeros_and_ones():
    feature = List(ClassLabel(names=["a", "b", "c"]))
    result = tokenize(texts(label=[2, 0], feature=feature, text=["one"]), tokenizer())
    assert result["labels"][0] == [1.0, 0.0, 1.0]


def test_continuous_targets_stay_floats():
    result = tokenize(texts(label=0.5, feature=Value("float32"), text=["one"]), tokenizer())
    assert result["labels"][0] == 0.5


def test_texts_without_labels():
    result = tokenize(texts(text=["one"]).remove_columns("label"), tokenizer())
    assert "labels" not in result.column_names


def test_nothing_is_written(tmp_path):
    texts(text=["one", "two"]).save_to_disk(tmp_path)
    before = sorted(file.name for file in tmp_path.iterdir())
    tokenize(Dataset.load_from_disk(str(tmp_path)), tokenizer())
    assert sorted(file.name for file in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("limit", "asked", "length"),
    [(None, None, 512), (None, 2000, 2000), (128, None, 128), (8192, None, 8192), (128, 16, 16)],
)
def test_length(limit, asked, length):
    options = {} if limit is None else {"model_max_length": limit}
    assert resolve_max_length(tokenizer(**options), asked) == length


def test_a_length_that_leaves_no_token_for_the_text():
    with pytest.raises(InputError) as error:
        resolve_max_length(tokenizer(model_max_length=128), 2)
    assert str(error.value) == (
        "data.max_length must be at least 3: 2 special tokens and one of the text. Got 2."
    )
    assert resolve_max_length(tokenizer(model_max_length=128), 3) == 3


def test_a_length_beyond_the_checkpoint():
    with pytest.raises(InputError) as error:
        resolve_max_length(tokenizer(model_max_length=128), 256)
    assert (
        str(error.value)
        == "data.max_length must be at most the 128 tokens that the checkpoint accepts. Got 256."
    )
