"""`py.typed` promises types: every public function and method has them."""

import importlib
import inspect
import pkgutil

import pytest

import kerasoft

MODULES = [
    module.name
    for module in pkgutil.walk_packages(kerasoft.__path__, "kerasoft.")
    if not module.name.rpartition(".")[2].startswith("_")
]


def functions(module):
    """The public functions of a module, and the public methods of its classes."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        if inspect.isclass(thing):
            for key, method in vars(thing).items():
                if isinstance(method, property):
                    method = method.fget
                method = getattr(method, "__func__", method)
                if inspect.isfunction(method) and (
                    not key.startswith("_") or key in ("__init__", "__call__")
                ):
                    yield f"{name}.{key}", method


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_carry_types(module):
    for name, function in functions(importlib.import_module(module)):
        function = inspect.unwrap(function)
        signature = inspect.signature(function)
        bare = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.annotation is parameter.empty
            and parameter.name not in ("self", "cls")
        ]
        assert not bare, f"{name}: {bare}"
        assert name.endswith("__init__") or (
            signature.return_annotation is not signature.empty
        ), name
