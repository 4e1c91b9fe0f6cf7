#!/usr/bin/env python3
"""seeds.py - writes the seeds of tests/fuzz/corpus: for each format one that is right and one of
each class of defect. Deterministic; any-* files, which were found by fuzzing, are left alone.
Usage: tests/fuzz/seeds.py (from the top of the tree)."""
import json
import os
import struct

CORPUS = "tests/fuzz/corpus"


def put(target, name, data):
    os.makedirs(f"{CORPUS}/{target}", exist_ok=True)
    with open(f"{CORPUS}/{target}/{name}", "wb") as file:
        file.write(data)


# ---- safetensors: expert tensors of DeepSeek-V4, H 32, I 32, E 1


def tensors():
    prefix = "layers.1.ffn.experts.0."
    for w in "w1", "w2", "w3":
        yield f"{prefix}{w}.weight", "I8", [32, 16], bytes(range(256)) * 2
        yield f"{prefix}{w}.scale", "F8_E8M0", [32, 1], bytes([120]) * 32


def header(change=lambda name, entry: entry):
    at, entries = 0, {}
    for name, dtype, shape, data in tensors():
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
        entries[name] = change(name, entry)
    return entries


def safetensors(entries, data=None, length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    data = b"".join(t[3] for t in tensors()) if data is None else data
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def with_field(ending, **fields):
    return header(lambda name, e: {**e, **fields} if name.endswith(ending) else e)


def safetensors_seeds():
    good, data = header(), b"".join(t[3] for t in tensors())
    yield "ok-layer", safetensors(good)
    yield "ok-empty", safetensors({}, b"")
    yield "bad-short", b"\x02"
    yield "bad-length-max", safetensors(good, length=2**64 - 1)
    yield "bad-length-sign", safetensors(good, length=2**63)
    yield "bad-length-beyond", safetensors(good, length=10**6)
    yield "bad-cut", safetensors(good)[:-1]
    yield "bad-longer", safetensors(good, data + b"x")
    yield "bad-json", safetensors(b'{"a":', b"")
    yield "bad-utf8", safetensors(b'{"\xff":{}}', b"")
    yield "bad-deep", safetensors(b'{"a":' + b"[" * 5000, b"")
    yield "bad-many-values", safetensors(b'{"a":[' + b"1," * 20000 + b"1]}", b"")
    yield "bad-duplicate", safetensors(b'{"a":{},"a":{}}', b"")
    yield "bad-hole", safetensors(with_field("w1.scale", data_offsets=[513, 545]))
    yield "bad-overlap", safetensors(with_field("w1.scale", data_offsets=[511, 543]))
    yield "bad-backwards", safetensors(with_field("w1.scale", data_offsets=[544, 512]))
    yield "bad-offset-max", safetensors(with_field("w1.scale", data_offsets=[512, 2**63 - 1]))
    yield "bad-product", safetensors(with_field("w1.weight", shape=[2**32, 2**32, 2**32]))
    yield "bad-rank", safetensors(with_field("w1.weight", shape=[1] * 9))
    yield "bad-dtype", safetensors(with_field("w1.weight", dtype="U9"))
    yield "bad-shape", safetensors(with_field("w1.weight", shape=[16, 32]))
    yield "bad-missing", safetensors({k: v for k, v in good.items() if "w2.scale" not in k}, data[:-32])
    yield "bad-scale-nan", safetensors(good, data[:512] + b"\xff" + data[513:])
    many = {k.replace("experts.0", "experts.65535"): v for k, v in good.items()}
    yield "bad-expert-number", safetensors(many)


# ---- GGUF: the magic is put in by the target


def gguf(version=3, tensors=0, values=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def text(s):
    return struct.pack("<Q", len(s)) + s


def gguf_seeds():
    name = text(b"blk.0.ffn_up_exps.weight")
    info = struct.pack("<I3Q", 3, 32, 32, 1) + struct.pack("<IQ", 39, 0)
    yield "any-none", gguf()
    yield "any-tensor", gguf(3, 1, 0, name + info + bytes(32) * 18)
    yield "bad-cut", gguf()[:12]
    yield "bad-version", gguf(99)
    yield "bad-tensors-max", gguf(3, 2**64 - 1)
    yield "bad-values-max", gguf(3, 0, 2**64 - 1)
    yield "bad-string-max", gguf(3, 0, 1, struct.pack("<Q", 2**64 - 1))
    yield "bad-string-sign", gguf(3, 0, 1, struct.pack("<Q", 2**63) + b"abc")
    yield "bad-array-max", gguf(3, 0, 1, text(b"k") + struct.pack("<IIQ", 9, 4, 2**62))
    yield "bad-array-deep", gguf(3, 0, 1, text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 2000)
    yield "bad-value-type", gguf(3, 0, 1, text(b"k") + struct.pack("<I", 77))
    yield "bad-rank-max", gguf(3, 1, 0, name + struct.pack("<I", 2**32 - 1))
    big = struct.pack("<I3Q", 3, 2**40, 2**40, 2**40) + struct.pack("<IQ", 39, 0)
    yield "bad-product", gguf(3, 1, 0, name + big)
    beyond = struct.pack("<I3Q", 3, 32, 32, 1) + struct.pack("<IQ", 39, 2**63)
    yield "bad-offset", gguf(3, 1, 0, name + beyond)
    kind = struct.pack("<I3Q", 3, 32, 32, 1) + struct.pack("<IQ", 250, 0)
    yield "bad-type", gguf(3, 1, 0, name + kind)
    align = text(b"general.alignment") + struct.pack("<II", 4, 0)
    yield "bad-alignment", gguf(3, 1, 1, align + name + info)


# ---- packed: the head with one entry; the target puts the sums in



def align(n, to=64):
    return (n + to - 1) // to * to


def record():
    """One expert of zero codes, H 32, I 32, MXFP4, gated: 2 + 2 panels of gate and up, 2 of down."""
    w13 = 128
    w2 = w13 + 4 * 8 * 32
    s13 = w2 + 2 * 8 * 32
    s2 = align(s13 + 4 * 16)
    globals_ = align(s2 + 2 * 16)
    b13 = globals_ + 64
    b2 = b13 + 4 * 64
    size = align(b2 + 2 * 64)
    data = bytearray(size)
    data[s13 : s13 + 64] = bytes([120]) * 64
    data[s2 : s2 + 32] = bytes([120]) * 32
    struct.pack_into("<3f", data, globals_, 1, 1, 1)
    struct.pack_into("<QIIIIIIQQQQ7Q", data, 0, 0x31454F4D34504657, 1, 1, 0, 1, 32, 0, 32, 32, size,
                     checksum(bytes(data[128:])), w13, w2, s13, s2, globals_, b13, b2)
    return bytes(data)


M64 = 2**64 - 1


def checksum(data):
    h = [1, 2, 3, 4]
    for i in range(0, len(data) // 32 * 32, 32):
        for j, w in enumerate(struct.unpack_from("<4Q", data, i)):
            h[j] = (h[j] ^ w) * 0x9E3779B97F4A7C15 & M64
            h[j] ^= h[j] >> 29
    rotated = [(x << j | x >> 64 - j) & M64 if j else x for j, x in enumerate(h)]
    return rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3]


def packed(change=None, **fields):
    rec = record()
    head = dict(magic=0x314B43415034462E, version=1, layout=1, record_version=1, layers=1,
                head_bytes=768, file_bytes=65536 + len(rec), checksum=0, identity=0, reserved=0)
    chain = checksum(struct.pack("<4Q", 0, 0, 0, 0) + rec[:128])
    entry = dict(layer=1, hidden=32, intermediate=32, experts=1, top_k=1, offset=65536,
                 bytes=len(rec), record_bytes=len(rec), headers_sum=chain, source_bytes=1,
                 format=0, gated=1, kind=0, on_input=0, alpha=0.0, beta=0.0, limit=0.0,
                 linear_beta=0.0, scale13=0.0, scale2=0.0, reserved0=0, reserved1=0)
    for key, value in fields.items():
        (head if key in head else entry)[key] = value
    out = struct.pack("<QIIIIQQQQQ192s", *head.values(), b"seed")
    out += struct.pack("<10Q4I6f2I64s320s", *entry.values(), b"family", b"layers.1.ffn.experts")
    return out + (change(rec) if change else rec)


def packed_seeds():
    most = M64
    yield "ok-layer", packed()
    yield "bad-cut", packed()[:700]
    yield "bad-checksum", packed(checksum=1)
    yield "bad-version", packed(version=2)
    yield "bad-layout", packed(layout=2)
    yield "bad-record-version", packed(record_version=2)
    yield "bad-layers-none", packed(layers=0, head_bytes=256)
    yield "bad-layers-max", packed(layers=2**32 - 1, head_bytes=256 + 512 * (2**32 - 1))
    yield "bad-head-max", packed(head_bytes=most)
    yield "bad-file-longer", packed(file_bytes=2**20)
    yield "bad-file-max", packed(file_bytes=most)
    for field in "hidden", "intermediate", "experts", "offset", "bytes", "record_bytes", "top_k":
        yield f"bad-{field}-max", packed(**{field: most})
        yield f"bad-{field}-big", packed(**{field: 2**20})
    yield "bad-format", packed(format=7)
    yield "bad-kind", packed(kind=99)
    yield "bad-gated", packed(gated=2)
    yield "bad-alpha-nan", packed(alpha=float("nan"))
    yield "bad-input-scale", packed(scale13=float("inf"))
    yield "bad-record-magic", packed(lambda r: b"x" + r[1:])
    yield "bad-record-flags", packed(lambda r: r[:28] + b"\xff" + r[29:])
    yield "bad-record-data", packed(lambda r: r[:500] + b"\x01" + r[501:])


# ---- tables


def table(*lines, end=None):
    count = len(lines) if end is None else end
    return ("\n".join(("@HEADER",) + lines + (f"end {count}", ""))).encode()


def table_seeds():
    recipe = ("recipe phase=gate_up format=mxfp4 class=bf16 n=192 k=64 gated=1 rows=1 cores=2 ns=1234 "
              "gemv=fp4moe_gemv_mx_bf16_8x16_c@{} panels=2 prefetch=0")
    schedule = "schedule format=mxfp4 class=bf16 hidden=64 intermediate=96 tokens=1 threads=2 ns=1 workers=2 share=4"
    yield "ok-empty", table()
    gain = ("gain format=mxfp4 class=bf16 hidden=64 intermediate=96 gated=1 rows=1 cores=2 threads=2 ns=1 "
            "ratio=1034000 noise=4000 kept=1")
    yield "ok-schedule", table(schedule)
    yield "ok-gain", table(schedule, gain)
    place = "placement cores=2 nodes=1 pus=4 ns=1 noise=4000 word=all_pus shards=1"
    yield "ok-placement", table(place, place.replace("cores=2", "cores=16").replace("all_pus", "per_l3"))
    yield "bad-placement-word", table(place.replace("all_pus", "0-3"))
    yield "bad-placement-shards", table(place.replace("shards=1", "shards=17"))
    yield "bad-placement-cores", table(place.replace("cores=2", "cores=0"))
    yield "bad-gain", table(gain.replace("ratio=1034000", "ratio=0"))
    yield "bad-not-a-table", b"something else\n"
    yield "bad-other-host", table().replace(b"@HEADER", b"fp4moe-table 1\narch vax\ncpu x\nisa c\ntopology x")
    yield "bad-no-end", table().replace(b"end 0\n", b"")
    yield "bad-end-count", table(schedule, end=2)
    yield "bad-after-end", table() + b"more\n"
    yield "bad-binary", table(schedule + "\0")
    yield "bad-long-line", table("recipe " + "x" * 70000)
    yield "bad-words", table("recipe " + "a=b " * 100)
    yield "bad-kernel-gone", table(recipe.replace("gemv_mx", "gemv_no").format(1))
    yield "bad-revision", table(recipe.format(4294967295))
    yield "bad-number-max", table(schedule.replace("ns=1", f"ns={2**64}"))
    yield "bad-number-sign", table(schedule.replace("workers=2", "workers=-1"))
    yield "bad-workers", table(schedule.replace("workers=2", "workers=0"))
    yield "bad-twice", table(schedule + " share=4")
    yield "bad-phase", table(recipe.replace("gate_up", "sideways").format(1))
    yield "bad-panels", table(recipe.replace("panels=2", "panels=4294967295").format(1))


for target, seeds in (("safetensors", safetensors_seeds), ("gguf", gguf_seeds),
                      ("packed", packed_seeds), ("table", table_seeds)):
    for name, data in seeds():
        put(target, name, data)
