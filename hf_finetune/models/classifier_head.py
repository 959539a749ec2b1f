"""Classification heads (linear, MLP, cosine, pooled) that replace the head of a transformers or timm classifier.

hf-finetune copies this file next to the weights of a model with such a head. It needs only torch and transformers (and
timm for a model of timm):

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
"""Config attribute that stores the head specification."""
VERSION = 1
"""Format version of the head specification."""
MODEL_TYPE = "classifier_with_head"
"""``model_type`` in config.json, so that libraries do not load the model with the architecture's own head."""
BACKBONE_TYPE = "backbone_model_type"
"""Key in config.json for the ``model_type`` of the architecture."""
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}
SCALE = 10.0
"""Initial scale of a cosine head: the maximum absolute logit."""
PREFIX_TOKENS = ("cls_token", "distillation_token", "dist_token", "register_tokens", "reg_token")
"""Names of the parameters for tokens that a backbone puts before the image tokens."""

_Base: Any = object


class HeadError(ValueError):
    """Raised if a head cannot be attached to an architecture; the message is the reason."""


class HeadLinear(nn.Linear):
    """Linear layer with torch's default initialization instead of the architecture's."""


class CosineLinear(nn.Module):
    """Cosine classifier: each logit is the cosine similarity of features and a class vector, times a learned scale.

    Source: Gidaris & Komodakis 2018, Dynamic Few-Shot Visual Learning without Forgetting.
    """

    def __init__(self, features: int, labels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, features))
        self.scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new class vectors, and reset the scale."""
        nn.init.normal_(self.weight)
        nn.init.constant_(self.scale, SCALE)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute logits [..., labels] from features [..., features]."""
        return self.scale * nn.functional.linear(
            nn.functional.normalize(features, dim=-1), nn.functional.normalize(self.weight, dim=-1)
        )


class Pooling(nn.Module):
    """Pool the vectors of all tokens or image positions into one vector.

    ``cls`` takes the first token that is not padding, ``mean`` the mean, and ``attention`` a weighted mean. Its weights
    are the softmax of a learned linear score, initialized to 0, so that it starts as the mean.

    Args:
        kind: ``cls``, ``mean`` or ``attention``.
        features: Size of each vector.
        num_prefix_tokens: Number of tokens before the image tokens (CLS, register); excluded from means.
        channels_last: Whether maps are [examples, height, width, features].

    Source: Ilse et al. 2018, Attention-based Deep Multiple Instance Learning, without its hidden layer.
    """

    def __init__(self, kind: str, features: int, num_prefix_tokens: int = 0, channels_last: bool = False):
        super().__init__()
        self.kind, self.num_prefix_tokens, self.channels_last = kind, num_prefix_tokens, channels_last
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
            values: Output of the backbone.
            mask: Attention mask [examples, tokens], 0 for padding.
        """
        if values.ndim == 4:
            values = values.flatten(1, 2) if self.channels_last else values.flatten(2).transpose(1, 2)
        if self.kind == "cls":
            if mask is None:
                return values[:, 0]
            first = mask.to(torch.int32).argmax(dim=1)
            return values[torch.arange(len(values), device=values.device), first]
        values = values[:, self.num_prefix_tokens :]
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
        pool: Pooling of token vectors, see ``Pooling``; None if the backbone returns one vector.
        hidden: Sizes of the hidden layers of ``mlp``.
        activation: Activation after each hidden layer.
        dropout: Probability of dropping an activation of a hidden layer.
        num_prefix_tokens: See ``Pooling``.
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
        num_prefix_tokens: int = 0,
        channels_last: bool = False,
    ):
        super().__init__()
        self.pool = Pooling(pool, features, num_prefix_tokens, channels_last) if pool else None
        sizes = [features, *(hidden if type == "mlp" else ())]
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(sizes):
            layers += [HeadLinear(in_features, out_features), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        final_layer = CosineLinear if type == "cosine" else HeadLinear
        self.layers = nn.Sequential(*layers, final_layer(sizes[-1], labels))

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute logits [..., labels] from features [..., features], or from the input of ``Pooling``."""
        features = values if self.pool is None else self.pool(values, mask)
        logits: torch.Tensor = self.layers(features)
        return logits


def is_given(config: PreTrainedConfig) -> bool:
    """Return whether a config specifies a head of this file."""
    spec: Any = getattr(config, FIELD, None)
    return bool(spec) and not spec.get("native")


def classifier_class(base: type, pooled: bool) -> type:
    """Return a subclass of an architecture's classifier with a head of this file; it keeps the class name.

    Args:
        base: Classifier of the architecture.
        pooled: Whether the head pools all tokens or positions of the backbone itself.
    """
    return _subclass(base, _PooledClassifier if pooled else _Classifier)


@cache
def _subclass(base: type, mixin: type) -> type:
    return type(base.__name__, (mixin, base), {"__module__": __name__})


class _Classifier(_Base):
    """Mixin for a classifier whose last linear layer is replaced by the head."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        spec = {
            key: value for key, value in getattr(config, FIELD).items() if key not in ("version", "native")
        }
        self.head_name = self._attach_head(spec)

    def _attach_head(self, spec: dict[str, Any]) -> str:
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
        """Save the model as transformers does, and copy this file next to it."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        folder, source = Path(save_directory), Path(__file__)
        kind = "Image" if "pixel_values" in self.main_input_name else "Sequence"
        _declare_head(folder / "config.json", source.stem, f"AutoModelFor{kind}Classification")
        if source.resolve() != (folder / source.name).resolve():
            shutil.copyfile(source, folder / source.name)


def _declare_head(path: Path, module: str, auto_class: str) -> None:
    """Rewrite config.json so that auto classes load the model with the code of this module."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content[BACKBONE_TYPE], content["model_type"] = content["model_type"], MODEL_TYPE
    content["auto_map"] = {
        "AutoConfig": f"{module}.{HeadConfig.__name__}",
        auto_class: f"{module}.{HeadModel.__name__}",
    }
    if content[BACKBONE_TYPE] == "timm_wrapper":  # transformers would otherwise infer it from model_type
        content["image_processor_type"] = "TimmWrapperImageProcessor"
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


class _PooledClassifier(_Classifier):
    """Mixin for a classifier whose head takes all outputs of the backbone: every token or image position."""

    def _attach_head(self, spec: dict[str, Any]) -> str:
        name, layer = _logits_layer(self)
        timm_model = getattr(self, "timm_model", None)
        if timm_model is not None:
            self.set_submodule(name, _timm_head(timm_model, layer.out_features, spec))
            return name
        backbone = self.base_model
        if backbone is self or self.config.is_encoder_decoder:
            raise HeadError("its backbone does not return one vector per token or image position")
        _remove_own_head(self, backbone)
        features, prefix_tokens = _hidden_size(self.config), _count_prefix_tokens(backbone)
        self.classifier = ClassificationHead(
            features, layer.out_features, num_prefix_tokens=prefix_tokens, **spec
        )
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
            arguments = {
                "pixel_values": pixel_values,
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "token_type_ids": token_type_ids,
                "inputs_embeds": inputs_embeds,
                **{name: value for name, value in kwargs.items() if name != "return_dict"},
            }
            given = {name: value for name, value in arguments.items() if value is not None}
            values = self.base_model(**given)[0]
        logits = self.get_submodule(self.head_name)(values, attention_mask)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = SequenceClassifierOutput if pixel_values is None else ImageClassifierOutput
        return output(loss=loss, logits=logits)


def _timm_head(timm_model: Any, labels: int, spec: dict[str, Any]) -> ClassificationHead:
    return ClassificationHead(
        timm_model.num_features,
        labels,
        num_prefix_tokens=getattr(timm_model, "num_prefix_tokens", 0),
        channels_last="NHWC" in str(getattr(timm_model, "output_fmt", "")),
        **spec,
    )


def _remove_own_head(model: Any, backbone: Any) -> None:
    """Remove all modules outside the backbone, and the backbone's pooler if it has weights."""
    for child, module in list(model.named_children()):
        if module is not backbone:
            delattr(model, child)
    pooler = getattr(backbone, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        backbone.pooler = None


def _count_prefix_tokens(backbone: Any) -> int:
    """Return the number of tokens that a backbone puts before the image tokens."""
    tokens = [value for name, value in backbone.named_parameters() if name.split(".")[-1] in PREFIX_TOKENS]
    return sum(value.shape[1] for value in tokens)


def _hidden_size(config: Any) -> int:
    """Return the size of the vectors that a backbone returns.

    Raises:
        HeadError: If the config does not define it.
    """
    sizes = getattr(config, "hidden_sizes", None) or [None]
    size: int | None = getattr(config, "hidden_size", None) or sizes[-1]
    if size is None:
        raise HeadError("its config does not define the hidden size of its backbone")
    return size


def _logits_layer(model: Any) -> tuple[str, nn.Linear]:
    """Return name and module of the linear layer that computes the logits.

    Raises:
        HeadError: If there is none.
    """
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None:
        classifier = timm_model.get_classifier()
        if not isinstance(classifier, nn.Linear) or getattr(timm_model, "aux_head", None) is not None:
            raise HeadError(f"its own head is {type(classifier).__name__}, not a single linear layer")
        return next((name, module) for name, module in model.named_modules() if module is classifier)
    backbone_modules = set() if model.base_model is model else set(model.base_model.modules())
    candidates = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and module not in backbone_modules
    ]
    if not candidates:
        raise HeadError("its own head has no linear layer that computes the logits")
    return candidates[-1]


class HeadConfig:
    """Loader of the config for ``AutoConfig``. It returns the config of the architecture."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Do nothing: ``save_pretrained`` writes ``auto_map`` itself."""

    @classmethod
    def from_pretrained(cls, path: Any, **kwargs: Any) -> Any:
        """Read the config, as ``PreTrainedConfig.from_pretrained`` does."""
        content, unused = PreTrainedConfig.get_config_dict(path, **kwargs)
        return cls.from_dict(content, **unused)

    @classmethod
    def from_dict(cls, content: dict[str, Any], **kwargs: Any) -> Any:
        """Build the architecture's config from the content of config.json."""
        content = dict(content)
        content["model_type"] = content.pop(BACKBONE_TYPE)
        return CONFIG_MAPPING[content["model_type"]].from_dict(content, **kwargs)


class HeadModel:
    """Loader of the model for ``AutoModelFor...``. It returns a subclass of the architecture's classifier."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Do nothing: ``save_pretrained`` writes ``auto_map`` itself."""

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
