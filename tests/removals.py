"""Replace a safeguard of the package, to see that the tests that guard it fail (see ``tools/mutations.py``).

A safeguard is named ``module:name``. By default it is removed: the inherited method takes its place, or a function that
does nothing. Otherwise it is replaced by a function that is called with the original and the arguments; its docstring
describes the replacement in docs/mutations.md.
"""

import os
import sys
from contextlib import nullcontext
from functools import reduce
from importlib import import_module

REPLACED = "HF_FINETUNE_TESTS_REPLACED"
"""Environment variable that sets the safeguard that launched processes replace, as ``module:name=function``."""


def replace(target, by=None, put=setattr):
    """Replace a safeguard in its module and in all modules of the package and the tests that import it.

    Args:
        target: The safeguard, ``module:name``.
        by: Function called with the original and the arguments, or any other object to put in its place; None removes
            the safeguard.
        put: Function that sets an attribute.
    """
    owner, name = locate(target)
    original, module_name = getattr(owner, name), target.partition(":")[0]
    replacement = _replacement(owner, name, by)
    put(owner, name, replacement)
    if owner is sys.modules[module_name] and getattr(original, "__module__", None) == module_name:
        for key, module in list(sys.modules.items()):
            imports = key.startswith(("hf_finetune.", "test_", "stage_helpers"))
            if imports and getattr(module, name, None) is original:
                put(module, name, replacement)


def replace_in_launched(target, by):
    """Let processes that the tests launch replace the safeguard too, if the replacement is one of this module."""
    if by is None or getattr(by, "__module__", None) == __name__:
        os.environ[REPLACED] = f"{target}={by.__name__ if by else ''}"


def replace_as_launched():
    """Replace the safeguard that the tests that launched this process do without, if any."""
    if declared := os.environ.get(REPLACED):
        target, _, by = declared.partition("=")
        replace(target, globals()[by] if by else None)


def locate(target):
    """Return the module or class that holds a safeguard, and its name there."""
    module_name, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, import_module(module_name))
    getattr(owner, name)
    return owner, name


def describe(target, by):
    """Return the replacement of a safeguard in words.

    Raises:
        AttributeError: If the replacement has no docstring.
    """
    owner, name = locate(target)
    base = _base(owner, name)
    if by is None and base:
        return f"The inherited `{base.__name__}.{name}`"
    by = by or nothing
    if not by.__doc__:
        raise AttributeError(f"{by.__name__} needs a docstring.")
    return by.__doc__.removesuffix(".")


def _replacement(owner, name, by):
    base, original = _base(owner, name), getattr(owner, name)
    if by is None and base:
        return getattr(base, name)
    by = by or nothing
    if not callable(by):
        return by
    return lambda *arguments, **options: by(original, *arguments, **options)


def _base(owner, name):
    """Return the class that a method is inherited from; None if it overrides none."""
    bases = owner.__mro__[1:] if isinstance(owner, type) else ()
    return next((base for base in bases if name in vars(base)), None)


def nothing(original, *arguments, **options):
    """Nothing."""


def always(original, *arguments, **options):
    """`True`."""
    return True


def unchanged(original, argument, *arguments, **options):
    """The first argument, unchanged."""
    return argument


def mean_loss(original, *arguments, **options):
    """The mean over the micro-batch."""
    loss = original(*arguments, **options)
    return lambda outputs, labels, num_items_in_batch=None: loss(outputs, labels)


def no_context(original, *arguments):
    """A context manager that does nothing."""
    return nullcontext()


def ignored_in_a_stage(original, *arguments, **options):
    """Nothing, if the stage calls it."""
    caller = sys._getframe(2).f_globals["__name__"]
    return None if caller == "hf_finetune.training.stage" else original(*arguments, **options)


def mode_of_the_module(original, self, mode=True):
    """The module's own `train`."""
    return type(self.module).train(self.module, mode)


def only_with_parameters(original, model):
    """Only the modules that have parameters."""
    return [module for module in original(model) if any(True for _ in module.parameters())]


def unseeded(original, self, index):
    """The global random state."""
    return self.dataset[index]
