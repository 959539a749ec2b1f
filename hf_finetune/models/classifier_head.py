"""A classifier of transformers under another head than its architecture's own: with hidden layers, cosine, or pooling.

hf-finetune copies this file beside the weights of such a model. It needs torch and transformers (and timm for a model
of timm), and nothing else:

    AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=True)
    AutoModelForSequenceClassification.from_pretrained(FOLDER, trust_remote_code=True)
"""

import json
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

__all__ = ["ClassificationHead", "HeadConfig", "HeadError", "HeadModel", "classifier_class", "is_given"]

FIELD = "classification_head"
"""Of a config: what the head is made of."""
VERSION = 1
"""Of what is said there."""
MODEL_TYPE = "classifier_with_head"
"""In config.json, so that no library takes the model for one under the architecture's own head."""
BACKBONE_TYPE = "backbone_model_type"
"""In config.json: the model_type of the config as it is in memory."""
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}
SCALE = 10.0
"""Of a cosine head, at first: the logits' largest size."""
LEADING = ("cls_token", "distillation_token", "dist_token", "register_tokens", "reg_token")

_Base: Any = object


class HeadError(ValueError):
    """An architecture cannot have a head; the message says why, and completes 'for this architecture: ...'."""


class HeadLinear(nn.Linear):
    """A linear layer that begins as torch's do, whatever the architecture does with its own."""


class CosineLinear(nn.Module):
    """Logits that are the cosine of the angle between features and a vector for each class, times a scale.

    Source: Gidaris & Komodakis 2018, Dynamic Few-Shot Visual Learning without Forgetting.
    """

    def __init__(self, features: int, labels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, features))
        self.scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new vectors."""
        nn.init.normal_(self.weight)
        nn.init.constant_(self.scale, SCALE)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute logits [..., labels] from features [..., features]."""
        return self.scale * nn.functional.linear(
            nn.functional.normalize(features, dim=-1), nn.functional.normalize(self.weight, dim=-1)
        )


class Pooling(nn.Module):
    """Join the vectors of all tokens or image positions to one vector.

    ``cls`` takes the first token that is no padding; ``mean`` the mean; ``attention`` a mean whose weights are the
    softmax of a learnt linear function of each vector, which is zero at first: it begins as the mean.

    Args:
        kind: ``cls``, ``mean`` or ``attention``.
        features: Size of each vector.
        leading: Number of tokens before the first of the image itself, which no mean takes in.
        channels_last: Whether maps are [examples, height, width, features].

    Source: Ilse et al. 2018, Attention-based Deep Multiple Instance Learning, without its hidden layer.
    """

    def __init__(self, kind: str, features: int, leading: int = 0, channels_last: bool = False):
        super().__init__()
        self.kind, self.leading, self.channels_last = kind, leading, channels_last
        if kind == "attention":
            self.query = nn.Parameter(torch.empty(1, features))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights of all vectors to the same value."""
        if self.kind == "attention":
            nn.init.zeros_(self.query)

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool tokens [examples, tokens, features] or maps [examples, features, height, width].

        Args:
            values: Of the backbone.
            mask: [examples, tokens], 0 for padding.
        """
        if values.ndim == 4:
            values = values.flatten(1, 2) if self.channels_last else values.flatten(2).transpose(1, 2)
        if self.kind == "cls":
            if mask is None:
                return values[:, 0]
            first = mask.to(torch.int32).argmax(dim=1)
            return values[torch.arange(len(values), device=values.device), first]
        values = values[:, self.leading :]
        scores = values.new_zeros(values.shape[:2])
        if self.kind == "attention":
            scores = nn.functional.linear(values, self.query).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)
        return (scores.softmax(dim=1).unsqueeze(-1) * values).sum(dim=1)


class ClassificationHead(nn.Module):
    """Compute logits from the output of the backbone.

    Args:
        features: Size of a vector of the backbone.
        labels: Number of logits.
        type: ``linear``, ``mlp`` or ``cosine``.
        pool: How several vectors become one, see ``Pooling``; None where there is one.
        hidden: Sizes of the hidden layers of ``mlp``.
        activation: Behind each hidden layer.
        dropout: Probability of dropping an activation of a hidden layer.
        leading: See ``Pooling``.
        channels_last: See ``Pooling``.
    """

    def __init__(
        self,
        features: int,
        labels: int,
        *,
        type: str = "linear",
        pool: str | None = None,
        hidden: Any = (),
        activation: str = "relu",
        dropout: float = 0.0,
        leading: int = 0,
        channels_last: bool = False,
    ):
        super().__init__()
        self.pool = Pooling(pool, features, leading, channels_last) if pool else None
        sizes = [features, *(hidden if type == "mlp" else ())]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [HeadLinear(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        last = CosineLinear if type == "cosine" else HeadLinear
        self.layers = nn.Sequential(*layers, last(sizes[-1], labels))

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute logits [..., labels] from features [..., features], or from the input of ``Pooling``."""
        features = values if self.pool is None else self.pool(values, mask)
        logits: torch.Tensor = self.layers(features)
        return logits


def is_given(config: PreTrainedConfig) -> bool:
    """Return whether a config asks for a head of this file."""
    spec: Any = getattr(config, FIELD, None)
    return bool(spec) and not spec.get("native")


def classifier_class(base: type, pooled: bool) -> type:
    """Return the class of a classifier under a head of this file. It has the name of the architecture's own class.

    Args:
        base: The architecture's own classifier.
        pooled: Whether the head takes every token or place of the backbone.
    """
    return _made(base, _PooledClassifier if pooled else _Classifier)


@cache
def _made(base: type, mixin: type) -> type:
    return type(base.__name__, (mixin, base), {"__module__": __name__})


class _Classifier(_Base):
    """Mixin for a classifier whose last linear layer is replaced by the head."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        spec = {
            key: value for key, value in getattr(config, FIELD).items() if key not in ("version", "native")
        }
        self.head_name = self._put_head(spec)

    def _put_head(self, spec: dict[str, Any]) -> str:
        name, layer = _logits_layer(self)
        self.set_submodule(name, ClassificationHead(layer.in_features, layer.out_features, **spec))
        return name

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, HeadLinear | CosineLinear | Pooling):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does, and this file beside it."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        folder = Path(save_directory)
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        content[BACKBONE_TYPE], content["model_type"] = content["model_type"], MODEL_TYPE
        kind = "Image" if "pixel_values" in self.main_input_name else "Sequence"
        here = Path(__file__)
        content["auto_map"] = {
            "AutoConfig": f"{here.stem}.{HeadConfig.__name__}",
            f"AutoModelFor{kind}Classification": f"{here.stem}.{HeadModel.__name__}",
        }
        if content[BACKBONE_TYPE] == "timm_wrapper":  # which transformers would else tell from the model_type
            content["image_processor_type"] = "TimmWrapperImageProcessor"
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        if here.resolve() != (folder / here.name).resolve():
            shutil.copyfile(here, folder / here.name)


class _PooledClassifier(_Classifier):
    """Mixin for a classifier whose head takes all outputs of the backbone: every token or image position."""

    def _put_head(self, spec: dict[str, Any]) -> str:
        timm_model = getattr(self, "timm_model", None)
        name, layer = _logits_layer(self)
        if timm_model is not None:
            features, labels = timm_model.num_features, layer.out_features
            leading = getattr(timm_model, "num_prefix_tokens", 0)
            last = "NHWC" in str(getattr(timm_model, "output_fmt", ""))
            head = ClassificationHead(features, labels, leading=leading, channels_last=last, **spec)
            self.set_submodule(name, head)
            return name
        backbone = self.base_model
        if backbone is self or self.config.is_encoder_decoder:
            raise HeadError("its backbone does not return one vector per token or image position")
        for child, module in list(self.named_children()):
            if module is not backbone:
                delattr(self, child)
        pooler = getattr(backbone, "pooler", None)
        if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
            backbone.pooler = None
        sizes = getattr(self.config, "hidden_sizes", None) or [None]
        features = getattr(self.config, "hidden_size", None) or sizes[-1]
        if features is None:
            raise HeadError("its config does not define the hidden size of its backbone")
        leading = sum(
            value.shape[1] for part, value in backbone.named_parameters() if part.split(".")[-1] in LEADING
        )
        self.classifier = ClassificationHead(features, layer.out_features, leading=leading, **spec)
        return "classifier"

    def forward(
        self,
        pixel_values: Any = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Classify images or texts."""
        if hasattr(self, "timm_model"):
            values = self.timm_model.forward_features(pixel_values.to(self.device, self.dtype))
        else:
            given = {
                "pixel_values": pixel_values,
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "token_type_ids": token_type_ids,
                "inputs_embeds": inputs_embeds,
                **{name: value for name, value in kwargs.items() if name != "return_dict"},
            }
            values = self.base_model(**{name: value for name, value in given.items() if value is not None})[0]
        logits = self.get_submodule(self.head_name)(values, attention_mask)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = SequenceClassifierOutput if pixel_values is None else ImageClassifierOutput
        return output(loss=loss, logits=logits)


def _logits_layer(model: Any) -> tuple[str, nn.Linear]:
    """Find the linear layer that gives the logits, and its name.

    Raises:
        HeadError: If there is none.
    """
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None:
        found = timm_model.get_classifier()
        if not isinstance(found, nn.Linear) or getattr(timm_model, "aux_head", None) is not None:
            raise HeadError(f"its own head is {type(found).__name__}, not a single linear layer")
        return next((name, module) for name, module in model.named_modules() if module is found)
    inside = set() if model.base_model is model else set(model.base_model.modules())
    fitting = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and module not in inside
    ]
    if not fitting:
        raise HeadError("its own head has no linear layer that computes the logits")
    return fitting[-1]


class HeadConfig:
    """Reader of the config for ``AutoConfig``. The config is that of the architecture."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Do nothing: what is saved says itself where its code is."""

    @classmethod
    def from_pretrained(cls, path: Any, **kwargs: Any) -> Any:
        """Read the config, as ``PreTrainedConfig.from_pretrained`` does."""
        content, unused = PreTrainedConfig.get_config_dict(path, **kwargs)
        return cls.from_dict(content, **unused)

    @classmethod
    def from_dict(cls, content: dict[str, Any], **kwargs: Any) -> Any:
        """Make the architecture's config of what config.json holds."""
        content = dict(content)
        content["model_type"] = content.pop(BACKBONE_TYPE)
        return CONFIG_MAPPING[content["model_type"]].from_dict(content, **kwargs)


class HeadModel:
    """Loader of the model for ``AutoModelFor...``. The model is of a subclass of the architecture's classifier."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Do nothing: what is saved says itself where its code is."""

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """Load a model, as ``PreTrainedModel.from_pretrained`` does."""
        config = HeadConfig.from_pretrained(path) if config is None else config
        return cls.class_for(config).from_pretrained(path, *args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        return cls.class_for(config)._from_config(config, **kwargs)

    @classmethod
    def class_for(cls, config: Any) -> Any:
        """Return the class of the model that belongs to a config."""
        base = getattr(transformers, config.architectures[0])
        if not is_given(config):
            return base
        return classifier_class(base, bool(getattr(config, FIELD).get("pool")))
