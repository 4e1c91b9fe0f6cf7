#!/usr/bin/env python3
"""uppers.py - functions that may return with upper halves of vector registers in use.

    uppers.py OBJECT...     names each, exit status 1 if there is one

What build/check sees at run time where the CPU tells (XINUSE), seen in the code everywhere: a
forward data-flow over each function of objdump's listing. An instruction on YMM or ZMM registers
sets the state, VZEROUPPER clears it, jumps carry it on. Registers 16 to 31, which VZEROUPPER leaves
alone, have no halves that SSE code could wait for, and compilers do not clear for them. A static function that others call by name
may return a vector: the state it leaves is its callers'. All others are called as C functions are
and must return clean.
"""
import re
import subprocess
import sys


def functions(path):
    """name -> list of (address, text)"""
    out = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], check=True,
                         capture_output=True, text=True).stdout
    found, name = {}, None
    for line in out.splitlines():
        head = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        code = re.match(r"\s*([0-9a-f]+):\t(.*)", line)
        if head:
            name = head[1]
            found[name] = []
        elif code and name:
            found[name].append((code[1], code[2]))
    return found


def leaves(code, dirty_callees):
    """1 if a way out of the function leaves upper halves in use"""
    place = {address: i for i, (address, _) in enumerate(code)}
    state, result = {}, 0
    for start in range(len(code)):  # 0, then what only tables of jumps reach: no vector is in use
        if start in state:
            continue
        state[start], todo = 0, [start]
        while todo:
            i = todo.pop()
            text, after, now = code[i][1], [], state[i]
            callee = re.match(r"(?:call|jmp)\s+[0-9a-f]+ <([^>+]*)>", text)
            if "vzero" in text:
                now = 0
            elif re.search(r"%[yz]mm(\d|1[0-5])\b", text) or (callee and callee[1] in dirty_callees):
                now = 1
            jump = re.match(r"(j\w+)\s+([0-9a-f]+) ", text)
            if jump and jump[2] in place:
                after.append(place[jump[2]])
            elif (jump and jump[1] == "jmp") or re.match(r"(repz )?ret", text):
                result |= now
            if not re.match(r"(notrack |repz )?(jmp|ret|ud2)", text) and i + 1 < len(code):
                after.append(i + 1)
            for j in after:
                if state.get(j, -1) < now:
                    state[j] = now
                    todo.append(j)
    return result


def check(path):
    code = functions(path)
    called = {m[1] for lines in code.values() for _, text in lines
              for m in [re.match(r"call\s+[0-9a-f]+ <([^>+]*)>", text)] if m}
    dirty = set()
    for _ in code:  # until callers of callers are known
        now = {name for name, lines in code.items() if leaves(lines, dirty)}
        if now == dirty:
            break
        dirty = now
    return sorted(name for name in dirty if name.startswith("fp4moe_") or name not in called)


def main():
    bad = [(path, name) for path in sys.argv[1:] for name in check(path)]
    for path, name in bad:
        print(f"{path}: {name} may return with upper halves in use")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
