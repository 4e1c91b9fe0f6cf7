#!/usr/bin/env python3
"""layer.py - a checkpoint's MoE layer from Python: ctypes and numpy, nothing else.

    layer.py LIBRARY_DIR LAYER.safetensors LAYER.io.safetensors

Runs x, topk_ids and topk_weights of the .io file through the first layer of the other, in three
precision classes, and compares with its y. Exit status 1: an error is above the class's limit.
"""
import ctypes as c
import json
import sys
from pathlib import Path

import numpy as np

F32, I32 = 0, 3  # fp4moe_dtype
CLASSES = {"f32": (0, 1e-5), "bf16": (1, 5e-3), "int8": (2, 1.5e-2)}  # fp4moe_precision, rel_l2

# ---- fp4moe.h and fp4moe_io.h, as far as they are used here


def struct(name, **fields):
    """A ctypes.Structure; one that begins with struct_size is created with it set."""

    def init(self, **values):
        if "struct_size" in fields:
            values.setdefault("struct_size", c.sizeof(self))
        c.Structure.__init__(self, **values)

    return type(name, (c.Structure,), {"_fields_": list(fields.items()), "__init__": init})


Activation = struct("fp4moe_activation", kind=c.c_int, gated=c.c_int, alpha=c.c_float,
                    beta=c.c_float, limit=c.c_float, linear_beta=c.c_float)
LayerDesc = struct("fp4moe_layer_desc", struct_size=c.c_size_t, hidden=c.c_size_t,
                   intermediate=c.c_size_t, experts=c.c_size_t, format=c.c_int,
                   precision=c.c_int, activation=Activation, router_weight_on_input=c.c_int,
                   input_global=c.c_int, input_scale_gate_up=c.c_float, input_scale_down=c.c_float,
                   shards=c.c_size_t)
CheckpointLayer = struct("fp4moe_checkpoint_layer", layer=c.c_size_t, prefix=c.c_char_p,
                         family=c.c_char_p, fp4=c.c_int, status=c.c_int, reason=c.c_char_p,
                         desc=LayerDesc, top_k=c.c_size_t, first_tensor=c.c_size_t,
                         tensor_count=c.c_size_t, bytes=c.c_uint64)
Limits = struct("fp4moe_limits", struct_size=c.c_size_t, max_tokens=c.c_size_t,
                top_k=c.c_size_t, threads=c.c_size_t)
Batch = struct("fp4moe_batch", struct_size=c.c_size_t, tokens=c.c_size_t, top_k=c.c_size_t,
               x=c.c_void_p, x_dtype=c.c_int, x_stride=c.c_size_t,
               y=c.c_void_p, y_dtype=c.c_int, y_stride=c.c_size_t,
               topk_ids=c.c_void_p, ids_dtype=c.c_int, ids_stride=c.c_size_t,
               topk_weights=c.c_void_p, weights_stride=c.c_size_t,
               expert_map=c.c_void_p, expert_map_count=c.c_size_t,
               accumulate=c.c_int, threads=c.c_size_t, stats=c.c_void_p, team=c.c_void_p)


class Library:
    def __init__(self, directory):
        core = c.CDLL(str(Path(directory).resolve() / "libfp4moe.so"))
        io = c.CDLL(str(Path(directory).resolve() / "libfp4moe_io.so"))
        pointer, size = c.c_void_p, c.c_size_t
        core.fp4moe_error_detail.restype = c.c_char_p
        core.fp4moe_status_name.restype = c.c_char_p

        def must(status, *_):
            if status:
                name, detail = core.fp4moe_status_name(status), core.fp4moe_error_detail()
                raise RuntimeError(f"{name.decode()}: {detail.decode()}")

        def bind(library, name, result, *arguments):
            function = getattr(library, "fp4moe_" + name)
            function.argtypes = arguments
            if result == "status":
                function.errcheck = must
            else:
                function.restype = result
            setattr(self, name, function)

        bind(core, "context_create", "status", pointer, pointer)
        bind(core, "context_destroy", None, pointer)
        bind(core, "layer_destroy", None, pointer)
        bind(core, "workspace_bytes", size, pointer, pointer)
        bind(core, "layer_forward", "status", pointer, pointer, pointer, size)
        bind(io, "checkpoint_open", "status", c.c_char_p, pointer)
        bind(io, "checkpoint_close", None, pointer)
        bind(io, "checkpoint_at", c.POINTER(CheckpointLayer), pointer, size)
        bind(io, "checkpoint_load_layer", "status", pointer, size, pointer, pointer, pointer)


# ---- Files


def read_safetensors(path):
    """{name: array}; BF16 is widened to float32, which is exact."""
    dtypes = {"F32": "<f4", "I32": "<i4", "BF16": "<u2"}
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, info in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        array = np.frombuffer(data[start + begin:start + end], dtypes[info["dtype"]])
        if info["dtype"] == "BF16":
            array = (array.astype("<u4") << 16).view("<f4")
        tensors[name] = array.reshape(info["shape"])
    return tensors


# ---- The layer


def forward(lib, layer, io):
    x, ids, weights = (np.ascontiguousarray(io[n]) for n in ("x", "topk_ids", "topk_weights"))
    y = np.empty_like(x)
    tokens, top_k = ids.shape
    limits = Limits(max_tokens=tokens, top_k=top_k)
    workspace = c.create_string_buffer(lib.workspace_bytes(layer, c.byref(limits)))
    batch = Batch(tokens=tokens, top_k=top_k, x=x.ctypes.data, x_dtype=F32, y=y.ctypes.data,
                  y_dtype=F32, topk_ids=ids.ctypes.data, ids_dtype=I32,
                  topk_weights=weights.ctypes.data)
    lib.layer_forward(layer, c.byref(batch), workspace, len(workspace))
    return y


def main(directory, layer_path, io_path):
    lib, io = Library(directory), read_safetensors(io_path)
    context, checkpoint, bad = c.c_void_p(), c.c_void_p(), False
    lib.context_create(None, c.byref(context))
    lib.checkpoint_open(layer_path.encode(), c.byref(checkpoint))
    for name, (precision, limit) in CLASSES.items():
        layer, desc = c.c_void_p(), LayerDesc()
        found = lib.checkpoint_at(checkpoint, 0).contents  # a NULL pointer raises ValueError
        c.pointer(desc)[0] = found.desc  # a copy: the original is the checkpoint's
        desc.precision = precision
        if io["x"].shape[1] != desc.hidden:
            raise ValueError(f"x has rows of {io['x'].shape[1]}, the layer of {desc.hidden}")
        lib.checkpoint_load_layer(checkpoint, 0, context, c.byref(desc), c.byref(layer))
        error = np.linalg.norm(forward(lib, layer, io) - io["y"]) / np.linalg.norm(io["y"])
        print(f"{found.family.decode()} {name}: rel_l2 {error:.2e}, limit {limit:.1e}")
        bad |= not error <= limit  # a NaN is bad
        lib.layer_destroy(layer)
    lib.checkpoint_close(checkpoint)
    lib.context_destroy(context)
    return int(bad)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
