"""A hint to the processor: what a compiled loop will read soon."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_BYTE, _INT = ir.IntType(8), ir.IntType(32)
#: Arguments of llvm.prefetch: to be read, to be kept in all caches, data.
_READ, _KEEP, _DATA = (ir.Constant(_INT, value) for value in (0, 3, 1))


@intrinsic
def prefetch(typing_context, array, index):
    """`prefetch(array, index)` in a compiled function: have entry `index` of a contiguous array sent from memory while work goes on.

    Nothing waits for it, and nothing happens where there is no such entry. To read the entry ahead instead would hold up everything behind it.
    """

    def generate(context, builder, signature, arguments):
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(values.data, [arguments[1]]), _BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, _READ, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
