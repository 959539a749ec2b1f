"""Other heads on every family: built, saved, and loaded by plain transformers."""

import json
from functools import cache

import pytest
import timm
import torch
from head_helpers import HEADS, batch_of, built, export, logits_elsewhere, save
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_finetune.cache.find_cut import find_cut
from hf_finetune.cache.replay import verify
from hf_finetune.errors import InputError
from hf_finetune.models.adapters import add_adapter
from hf_finetune.models.build import build_model, build_skeleton, read_config
from hf_finetune.models.classifier_head import ClassificationHead
from hf_finetune.models.head_spec import CODE, head_problem, load_config, set_head
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.planning.selectors import select
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.tasks import TASKS
from hf_finetune.training.freezing import freeze_all_but

pytestmark = pytest.mark.slow

IMAGES = [
    *("timm/test_resnet", "timm/test_efficientnet", "timm/test_convnext", "timm/test_vit"),
    "timm/swin_tiny_patch4_window7_224",
    *("vit", "deit", "dinov2", "swin", "resnet", "convnext"),
]
TEXTS = ["bert", "distilbert", "roberta", "albert", "deberta-v2", "modernbert", "gpt2", "electra"]
NO_TOKEN = "it has no class token"
REFUSED = {
    **{(name, "cls"): NO_TOKEN for name in IMAGES if name not in ("timm/test_vit", "vit", "deit", "dinov2")},
    ("gpt2", "cls"): "its first token does not attend to later tokens",
    **{("convnext", pool): "convnext.layernorm.weight" for pool in ("mean", "attention")},
    **{("timm/test_convnext", pool): "timm_model.head.norm.weight" for pool in ("mean", "attention")},
}
PAIRS = [(name, head) for name in (*IMAGES, *TEXTS) for head in HEADS]
SOUND = [pair for pair in PAIRS if pair not in REFUSED]


def modality(name):
    return "text" if name in TEXTS else "image"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, tiny_model):
    return {name: save(tiny_model(name), tmp_path_factory.mktemp("checkpoint")) for name in (*IMAGES, *TEXTS)}


@pytest.fixture(scope="module")
def models(checkpoints):
    return {(name, head): built(checkpoints[name], modality(name), HEADS[head]) for name, head in SOUND}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, models):
    """Return the function that saves a model, once, and returns its folder and its logits."""

    @cache
    def save_once(name, head):
        folder = tmp_path_factory.mktemp("model")
        return folder, export(models[name, head].eval(), folder)

    return save_once


@pytest.fixture(scope="module")
def found(tmp_path_factory, exported):
    """Return the logits of all saved models in a process without hf_finetune."""
    asked = {"|".join(pair): (exported(*pair)[0], modality(pair[0])) for pair in SOUND}
    logits = logits_elsewhere(asked, tmp_path_factory.mktemp("found") / "logits.pt")
    return {pair: logits["|".join(pair)] for pair in SOUND}


def alike(logits, expected):
    """Compare logits but for rounding: weights that lie elsewhere in memory may be summed up in another order."""
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pair", SOUND, ids="-".join)
def test_plain_transformers_loads_it_from_one_file_and_its_logits_are_the_same(exported, found, pair):
    folder, expected = exported(*pair)
    alike(found[pair], expected)
    assert [file.name for file in folder.glob("*.py")] == [CODE.name]
    assert "hf_finetune" not in (folder / CODE.name).read_text(encoding="utf-8").replace("hf-finetune", "")


@pytest.mark.parametrize("pair", SOUND, ids="-".join)
def test_it_does_its_work_and_is_the_head_for_selectors(models, pair):
    model = models[pair]
    assert head_problem(model, batch_of(model)) == ""
    heads = [
        (name, module) for name, module in model.named_modules() if isinstance(module, ClassificationHead)
    ]
    assert len(heads) == 1
    own = {f"{heads[0][0]}.{name}" for name, _ in heads[0][1].named_parameters()}
    layout = read_layout(model)
    assert own <= set(select(layout, "head"))
    assert not own & set(select(layout, "layers[0:]"))
    if pair[1] in ("cls", "mean", "attention") or pair[0].startswith("timm/"):
        assert own == set(select(layout, "head"))


@pytest.mark.parametrize("pair", SOUND, ids="-".join)
def test_the_backbone_below_it_can_be_left_out(models, pair):
    model = models[pair]
    head = select(read_layout(model), "head")
    freeze_all_but(model, head)
    model.train()
    batch = batch_of(model)
    probes = tuple(
        {name: torch.cat([value] * times) if times > 1 else value for name, value in batch.items()}
        for times in (1, 2)
    )
    if pair[0] in TEXTS:
        probes = ({name: value[:, :5] for name, value in probes[0].items()}, probes[1])
    cut = find_cut(model, head, probes)
    for probe in probes:
        verify(model, cut, probe)


@pytest.mark.defends(
    "hf_finetune.models.head_spec:head_problem",
    why="A head that the architecture does not support is an error",
    ids=["convnext-mean"],
)
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair in REFUSED], ids="-".join)
def test_unsupported_heads_are_refused_with_the_reason(checkpoints, pair):
    name, head = pair
    config = read_config(str(checkpoints[name]), ["a", "b"], "single_label")
    set_head(config, HEADS[head])
    if head == "cls":
        with pytest.raises(InputError) as caught:
            build_skeleton(config, TASKS[f"{modality(name)}-classification"])
        shown = getattr(config, "architecture", config.model_type)
        assert str(caught.value) == (
            f"model.head must be supported by the architecture {shown}. Got linear, pool: cls. "
            f"Reason: {REFUSED[pair]}."
        )
        return
    model = build_model(str(checkpoints[name]), config, task=TASKS[f"{modality(name)}-classification"]).model
    told = head_problem(model, batch_of(model))
    assert told == f"some weights would not be used, such as {REFUSED[pair]}"


def test_a_new_head_follows_from_the_seed_and_not_from_the_architecture(checkpoints):
    one, other = (built(checkpoints["bert"], "text", HEADS["attention"]) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
    first = one.classifier.layers[0].weight
    assert first.abs().max() <= 1 / 4 and first.std() > 0.1  # torch's for 16 inputs; BERT's would be 0.02
    assert one.classifier.pool.query.tolist() == [[0.0] * 16]


def test_a_checkpoint_with_such_a_head_can_be_fine_tuned_again(exported):
    """With the same labels the head is kept, with others it is new; a linear head takes its place."""
    for name in ("bert", "timm/test_resnet"):
        kind = modality(name)
        folder, expected = exported(name, "mlp")
        again = built(folder, kind, HEADS["mlp"])
        with torch.no_grad():
            alike(again(**batch_of(again)).logits, expected)
        other = built(folder, kind, HEADS["mlp"], ["x", "y"])
        assert other(**batch_of(other)).logits.shape == (2, 2)
        linear = built(folder, kind, None)
        assert not any(isinstance(module, ClassificationHead) for module in linear.modules())
        assert not (hasattr(linear.config, "auto_map") or hasattr(linear.config, "classification_head"))


def test_without_trust_no_code_is_run_and_nobody_takes_it_for_a_plain_model(exported):
    folder = exported("bert", "mlp")[0]
    with pytest.raises(ValueError, match="custom code which must be executed"):
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert content["model_type"] == "classifier_with_head"
    assert content["architectures"] == ["BertForSequenceClassification"]
    assert content["auto_map"] == {
        "AutoConfig": "classifier_head.HeadConfig",
        "AutoModelForSequenceClassification": "classifier_head.HeadModel",
    }


def test_what_was_loaded_can_be_saved_again(exported, tmp_path):
    folder = exported("bert", "mlp")[0]
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(tmp_path / "again")
    for name in ("config.json", CODE.name):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_plain_models_stay_plain_beside_it(exported, checkpoints):
    AutoModelForSequenceClassification.from_pretrained(exported("bert", "mlp")[0], trust_remote_code=True)
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoints["bert"], trust_remote_code=True)
    assert type(plain).__module__ == "transformers.models.bert.modeling_bert"


def test_a_file_that_is_not_this_versions_is_told_and_not_run(exported, tmp_path, caplog):
    folder = exported("bert", "mlp")[0]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / CODE.name).write_text("raise RuntimeError", encoding="utf-8")
    assert load_config(tmp_path).model_type == "bert"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / CODE.name} is from another version: plain transformers may compute different results."
    ]
    newer = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    newer["classification_head"]["version"] = 2
    (tmp_path / "config.json").write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(ValueError, match="its head has version 2, but this hf-finetune supports version 1"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("head", "native"),
    [
        ({"type": "mlp", "pool": None, "hidden": [9], "activation": None, "dropout": 0.3}, True),
        ({"type": "mlp", "pool": None, "hidden": [9], "activation": "gelu", "dropout": 0.3}, True),
        ({"type": "mlp", "pool": None, "hidden": [9], "activation": "relu", "dropout": 0.3}, False),
        ({"type": "mlp", "pool": None, "hidden": [9, 9], "activation": None, "dropout": 0.3}, False),
        ({"type": "cosine", "pool": None}, False),
    ],
)
def test_timms_own_hidden_layer_is_used_if_it_matches_the_request(checkpoints, head, native):
    config = read_config(str(checkpoints["timm/test_convnext"]), ["a", "b"], "single_label")
    set_head(config, head)
    assert config.classification_head["native"] is native
    model = build_model(
        str(checkpoints["timm/test_convnext"]), config, task=TASKS["image-classification"]
    ).model
    if not native:
        assert isinstance(model.timm_model.get_classifier(), ClassificationHead)
        return
    hidden = model.timm_model.head.pre_logits
    assert (hidden.fc.out_features, model.timm_model.head.drop.p) == (9, 0.3)
    names = {
        f"timm_model.head.{part}.{kind}" for part in ("pre_logits.fc", "fc") for kind in ("weight", "bias")
    }
    assert set(select(read_layout(model), "head")) == names


@pytest.mark.parametrize(("dropout", "native"), [(0.3, True), (0.5, False)])
def test_timms_own_hidden_layer_is_not_taken_where_two_shares_are_dropped(checkpoints, dropout, native):
    head = {"type": "mlp", "pool": None, "hidden": [9], "activation": None, "dropout": 0.3}
    path = str(checkpoints["timm/test_convnext"])
    config = read_config(path, ["a", "b"], "single_label", dropout=dropout)
    set_head(config, head, dropout)
    assert config.classification_head["native"] is native
    model = build_model(path, config, task=TASKS["image-classification"]).model
    assert model.timm_model.head.drop.p == dropout
    rates = {m.p for m in model.timm_model.get_classifier().modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == (set() if native else {0.3})


@pytest.mark.slow
def test_timms_own_stays_a_model_of_timm(checkpoints, tmp_path):
    head = {"type": "mlp", "pool": None, "hidden": [9], "activation": None, "dropout": 0.0}
    model = built(checkpoints["timm/test_convnext"], "image", head)
    expected = export(model, tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    found = logits_elsewhere({"it": (tmp_path, "image")}, tmp_path / "logits.pt")
    alike(found["it"], expected)
    native = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        alike(native(**{"x": batch_of(model)["pixel_values"]}), expected)


@pytest.mark.parametrize("name", ["bert", "timm/test_vit"])
def test_a_head_is_tried_below_an_adapter_too(checkpoints, name):
    model = built(checkpoints[name], modality(name), HEADS["attention"])
    add_adapter(model, head_names(model), AdapterSpec(type="lora"))
    before = {path: value.requires_grad for path, value in model.named_parameters()}
    assert head_problem(model, batch_of(model)) == ""
    assert {path: value.requires_grad for path, value in model.named_parameters()} == before
    adapted = read_layout(model)
    assert {path for path in select(adapted, "lora") if "lora" not in path} == set(select(adapted, "head"))


def test_a_config_without_a_head_is_unchanged(checkpoints):
    config = AutoConfig.from_pretrained(checkpoints["bert"])
    before = config.to_dict()
    set_head(config, None)
    assert config.to_dict() == before
