"""Compiled kernels give the same numbers whatever is compiled, or read from numba's cache, in a process.

A kernel that another one calls exists twice: as itself, and as a copy in the caller, which the compiler goes over once more. Which of the two
a call reaches depends on what the process has loaded before: a kernel that was compiled a moment ago calls itself-compiled ones, one from the
cache calls the copies. Where the compiler may take sums in any order, the two differ in the last bits. A kernel that is made part of its
callers (`forceinline`) is not called at all.
"""

import importlib
import pkgutil

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import sfxflow


@pytest.fixture(scope="module")
def kernels():
    """Every kernel of the package."""
    names = [module.name for module in pkgutil.walk_packages(sfxflow.__path__, "sfxflow.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    assert len(found) > 100
    return found


def names_in(code):
    """Names that a function's code looks up, those of functions in it included."""
    inner = (constant for constant in code.co_consts if hasattr(constant, "co_names"))
    return set(code.co_names).union(*map(names_in, inner))


def kernels_called(kernel):
    """Kernels that a kernel calls."""
    known = kernel.py_func.__globals__
    found = (known.get(name) for name in names_in(kernel.py_func.__code__))
    return {value for value in found if isinstance(value, Dispatcher)}


def called_apart(kernels):
    """Kernels with sums in any order, in themselves or in what they call, that others call instead of holding them."""
    called = {kernel: kernels_called(kernel) for kernel in kernels}
    any_order = {kernel for kernel in kernels if kernel.targetoptions.get("fastmath")}
    while more := {kernel for kernel in kernels if called[kernel] & any_order} - any_order:
        any_order |= more
    held = {kernel for kernel in kernels if kernel.targetoptions.get("forceinline")}
    return set().union(*called.values()) & any_order - held


def test_sums_in_any_order_are_part_of_what_calls_them(kernels):
    assert {f"{kernel.__module__}.{kernel.__name__}" for kernel in called_apart(kernels)} == set()


@numba.njit(fastmath={"reassoc"})
def _summed(values):
    return np.sum(values)


@numba.njit(fastmath={"reassoc"}, forceinline=True)
def _held(values):
    return np.sum(values)


@numba.njit
def _calls(values):
    return _summed(values) + _held(values)


@numba.njit
def _calls_what_calls(values):
    return _calls(values)


def test_calls_are_found_through_other_kernels():
    assert called_apart({_summed, _held, _calls, _calls_what_calls}) == {_summed, _calls}
