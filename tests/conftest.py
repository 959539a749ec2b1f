"""Shared by all tests: no network, an empty cache, deprecations as errors, tiny models and tiny data."""

import gc
import logging
import os
import re
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from unittest.mock import patch

# Set before the libraries are imported, which read these.
CACHE = tempfile.TemporaryDirectory(prefix="hf-finetune-tests-")
os.environ.update(
    HF_HOME=CACHE.name,
    HF_DATASETS_CACHE=str(Path(CACHE.name) / "datasets"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    OMP_NUM_THREADS="1",  # More threads slow such small models down, and change the last bit of the results.
    TOKENIZERS_PARALLELISM="false",
)
TESTS = Path(__file__).parent
for beside in ("unit", "distributed"):
    sys.path.insert(0, str(TESTS / beside))  # so that tests can import the helper modules

import datasets  # noqa: E402
import pytest  # noqa: E402
import pytest_socket  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from timm.layers import weight_init  # noqa: E402
from transformers import TimmWrapperConfig  # noqa: E402
from transformers.initialization import TORCH_INIT_FUNCTIONS  # noqa: E402

datasets.disable_progress_bars()
transformers.logging.disable_progress_bar()

DEPRECATIONS = ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning")
WATCHED = r"(hf_finetune|transformers|accelerate|torch|timm)(\..*)?"
COLORS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
WORDS = ["good", "great", "fine", "bad", "poor", "dull", "film", "plot", "the", "a"]


def pytest_configure(config):
    # A shell ignores SIGINT for its background processes, and all processes of the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for category in DEPRECATIONS:
        config.addinivalue_line("filterwarnings", f"error::{category}:{WATCHED}")
    handler = _ErrorOnDeprecation(logging.WARNING)
    for name in ("transformers", "accelerate"):
        logging.getLogger(name).addHandler(handler)


def pytest_unconfigure():
    gc.unfreeze()


def pytest_runtest_setup(item):
    if TESTS / "unit" in item.path.parents:
        pytest_socket.disable_socket(allow_unix_socket=True)


def pytest_runtest_teardown(item):
    pytest_socket.enable_socket()


class _ErrorOnDeprecation(logging.Handler):
    """Turn deprecations that transformers and accelerate log, instead of warning, into errors."""

    def emit(self, record):
        text = record.getMessage()
        if re.search(r"deprecat|FutureWarning", text, re.IGNORECASE):
            raise AssertionError(f"{record.name} says: {text}")


@pytest.fixture(scope="module", autouse=True)
def short_collections():
    """Freeze the imported objects, so that the garbage collection of accelerate in each stage skips them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Use a separate cache for each module: a run that finds the cache of another test reports that it uses it."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("HF_FINETUNE_CACHE", str(tmp_path_factory.mktemp("kept")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_values_on_meta():
    """Skip the initialization of weights on the meta device, which writes nothing and takes most of the time."""
    wrapped = {name: _unless_meta(initialize) for name, initialize in TORCH_INIT_FUNCTIONS.items()}
    with (
        patch.multiple(torch.nn.init, **wrapped),
        patch.dict(TORCH_INIT_FUNCTIONS, wrapped),
        patch.object(weight_init, "_trunc_normal_", _unless_meta(weight_init._trunc_normal_)),
    ):
        yield


def _unless_meta(initialize):
    @wraps(initialize)
    def initialize_values(tensor, *arguments, **options):
        return tensor if tensor.is_meta else initialize(tensor, *arguments, **options)

    return initialize_values


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Return a folder with 12 different squares of each of three colors."""
    folder = tmp_path_factory.mktemp("squares")
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for index in range(12):
            shade = tuple(min(255, channel + 4 * index) for channel in color)
            Image.new("RGB", (40, 40), shade).save(folder / name / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """Return a csv of 40 different short texts of two classes."""
    lines = ["text,label"]
    for index in range(20):
        tail = f"the {WORDS[index % 10]} {WORDS[index // 2]} film"
        lines += [
            f"good {tail} great{' fine' * (index % 3)},good",
            f"bad {tail} poor{' dull' * (index % 3)},bad",
        ]
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def timm_checkpoint(tmp_path_factory):
    """Return a saved TimmWrapper ResNet of 0.4 million weights, with BatchNorm, for images of 32 pixels."""
    folder = tmp_path_factory.mktemp("timm")
    make_model("timm/test_resnet").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_checkpoint(tmp_path_factory):
    """Return a saved two-layer BERT with dropout, and its tokenizer of a dozen words."""
    folder = tmp_path_factory.mktemp("bert")
    make_model("bert", hidden_dropout_prob=0.1).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model():
    """Return the function that makes tiny models with random weights, by name."""
    return make_model


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Return the function that writes a tokenizer of a dozen words into a folder."""
    return save_tokenizer


def save_tokenizer(folder):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = transformers.BertTokenizerFast(
        vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=16
    )
    tokenizer.save_pretrained(folder)


def make_model(name, **changes):
    """Return a classifier of an architecture: a few thousand weights, more for timm models.

    Args:
        name: ``bert``, ``vit``, ..., or ``timm/ARCHITECTURE``.
        changes: Fields of its config. ``num_labels`` is 3 unless given.
    """
    torch.manual_seed(0)
    changes = {"num_labels": 3, **changes}
    if name.startswith("timm/"):
        return _timm_model(name.removeprefix("timm/"), changes)
    prefix, fields = ARCHITECTURES[name]
    config = getattr(transformers, f"{prefix}Config")(**{**fields, **changes})
    kind = "SequenceClassification" if "vocab_size" in fields else "ImageClassification"
    return getattr(transformers, f"{prefix}For{kind}")(config).eval()


def _timm_model(architecture, changes):
    known = timm.get_pretrained_cfg(architecture).to_dict()
    cfg = {key: known[key] for key in ("mean", "std", "interpolation", "crop_pct")}
    size = changes.pop("size", 32)
    config = TimmWrapperConfig(
        architecture=architecture,
        pretrained_cfg={**cfg, "input_size": [3, size, size]},
        **{"model_args": TIMM_ARGUMENTS.get(architecture, {}), **changes},
    )
    with ExitStack() as stack:
        for patched in _thinner(architecture):
            stack.enter_context(patched)
        model = transformers.TimmWrapperForImageClassification(config)
    for module in (
        model.modules()
    ):  # timm's initialization gives features of about 1e-5, whose gradients are lost to rounding
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def _thinner(architecture):
    """Return patches that reduce the channels of a timm architecture whose width is no argument."""
    if architecture.startswith("vgg"):
        return [patch.dict(timm.models.vgg.cfgs, {"vgg11": [8, "M", 8, "M", 16, 16, "M"]})]
    if architecture == "inception_v3":
        module = sys.modules["timm.models.inception_v3"]  # a parameter of the function would shadow the name

        def conv(channels, features, make=module.ConvNormAct, **options):
            return make(max(channels // 8, 3), features // 8, **options)

        def classifier(features, *arguments, make=module.create_classifier, **options):
            return make(features // 8, *arguments, **options)

        return [
            patch.object(module, "ConvNormAct", conv),
            patch.object(module, "create_classifier", classifier),
        ]
    return []


# Arguments that make a timm architecture tiny.
TIMM_ARGUMENTS = {
    "vgg11": {"mlp_ratio": 0.01},
    "vgg11_bn": {"mlp_ratio": 0.01},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "window_size": 4,
        "embed_dim": 8,
        "depths": [1, 2],
        "num_heads": [2, 2],
    },
}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TOKENS = {"vocab_size": 15, "max_position_embeddings": 24, "pad_token_id": 0}
PIXELS = {"image_size": 32, "patch_size": 16}
# Config of each architecture. No dropout, so that gradients can be compared.
ARCHITECTURES = {
    "bert": ("Bert", {**LAYERS, **NO_DROPOUT, **TOKENS}),
    "roberta": ("Roberta", {**LAYERS, **NO_DROPOUT, **TOKENS}),
    "electra": ("Electra", {**LAYERS, **NO_DROPOUT, **TOKENS, "embedding_size": 16}),
    "albert": ("Albert", {**LAYERS, **NO_DROPOUT, **TOKENS, "embedding_size": 8}),
    "deberta-v2": ("DebertaV2", {**LAYERS, **NO_DROPOUT, **TOKENS}),
    "distilbert": (
        "DistilBert",
        {
            **TOKENS,
            "dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 32,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
    ),
    "modernbert": (
        "ModernBert",
        {**LAYERS, **TOKENS, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    ),
    "gpt2": (
        "GPT2",
        {
            "vocab_size": 15,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 24,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "vit": ("ViT", {**LAYERS, **NO_DROPOUT, **PIXELS}),
    "deit": ("DeiT", {**LAYERS, **NO_DROPOUT, **PIXELS}),
    "dinov2": (
        "Dinov2",
        {**PIXELS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2},
    ),
    "swin": (
        "Swin",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [2, 2],
            "window_size": 4,
            "drop_path_rate": 0.0,
            "hidden_dropout_prob": 0.0,
        },
    ),
    "resnet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"},
    ),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2}),
}
