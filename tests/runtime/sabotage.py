"""Machine code that misbehaves: edits of a kernel's LLVM IR, put in its place through the overrides of the cache."""

from __future__ import annotations

import re
from collections.abc import Callable

from tilewright.build.cache import disk_cache
from tilewright.build.kernel_cache import key_of, target_of
from tilewright.build.stages import Stages
from tilewright.design.design import Design
from tilewright.emit import abi
from tilewright.runtime.subject import Subject

_ENTRY = "define void @tw_run(ptr %args) {"
_LANES = re.compile(r"(icmp slt <\d+ x i32> )<([^>]*)>")


def _instead(body: str, declared: str = "") -> Callable[[str, Subject], str]:
    """`tw_run` that executes `body`; the real one is left as `tw_real`."""

    def edit(text: str, subject: Subject) -> str:
        c = abi.tensor_word(subject.kernel, "c")
        elements = subject.sizes["M"] * subject.sizes["N"]
        filled = body.format(c=c, end=elements, bytes=4 * elements)
        head = declared.format(bytes=4 * elements)
        return text.replace(_ENTRY, "define void @tw_real(ptr %args) {") + f"\n{head}\n{_ENTRY}\nentry:\n{filled}\n}}\n"

    return edit


_OUTPUT = "  %at = getelementptr i64, ptr %args, i64 {c}\n  %c = load ptr, ptr %at\n"


def _shorter_tail(text: str, _: Subject) -> str:
    """Masks that leave out the last element of a ragged tile."""

    def shifted(found: re.Match[str]) -> str:
        lanes = [int(lane.split()[1]) + 1 for lane in found[2].split(",")]
        return found[1] + "<" + ", ".join(f"i32 {n}" for n in lanes) + ">"

    edited = _LANES.sub(shifted, text)
    assert edited != text
    return edited


def _longer_tail(text: str, _: Subject) -> str:
    """Masks that let one element too many through."""
    edited = _LANES.sub(lambda found: found[0].replace("slt", "sle"), text)
    assert edited != text
    return edited


SABOTAGE: dict[str, Callable[[str, Subject], str]] = {
    "shorter tail": _shorter_tail,
    "longer tail": _longer_tail,
    "writes nothing": _instead("  ret void"),
    "replays an earlier output": _instead(
        _OUTPUT
        + """  %done = load i1, ptr @done
  br i1 %done, label %again, label %first
first:
  call void @tw_real(ptr %args)
  call ptr @memcpy(ptr @saved, ptr %c, i64 {bytes})
  store i1 true, ptr @done
  ret void
again:
  call ptr @memcpy(ptr %c, ptr @saved, i64 {bytes})
  ret void""",
        "@done = internal global i1 false\n@saved = internal global [{bytes} x i8] zeroinitializer\n"
        "declare ptr @memcpy(ptr, ptr, i64)",
    ),
    "hangs": _instead("  br label %loop\nloop:\n  %x = load volatile i64, ptr %args\n  br label %loop"),
    "writes behind its output": _instead(
        "  call void @tw_real(ptr %args)\n"
        + _OUTPUT
        + "  %out = getelementptr float, ptr %c, i64 {end}\n  store float 1.0, ptr %out\n  ret void"
    ),
    "writes before its output": _instead(
        "  call void @tw_real(ptr %args)\n"
        + _OUTPUT
        + "  %out = getelementptr float, ptr %c, i64 -1\n  store float 1.0, ptr %out\n  ret void"
    ),
    "writes to an input": _instead(
        "  call void @tw_real(ptr %args)\n"
        "  %at = getelementptr i64, ptr %args, i64 4\n  %a = load ptr, ptr %at\n  store float 1.0, ptr %a\n  ret void"
    ),
    "segfaults": _instead("  store i64 1, ptr inttoptr (i64 64 to ptr)\n  ret void"),
    "executes nonsense": _instead("  call void @llvm.trap()\n  unreachable", "declare void @llvm.trap()"),
    "allocates without bound": _instead(
        """  br label %loop
loop:
  %p = call ptr @malloc(i64 8388608)
  %q = call ptr @memset(ptr %p, i32 1, i64 8388608)
  br label %loop""",
        "declare ptr @malloc(i64)\ndeclare ptr @memset(ptr, i32, i64)",
    ),
    "aborts": _instead("  call void @abort()\n  ret void", "declare void @abort()"),
}


def sabotage(subject: Subject, design: Design, how: str) -> None:
    """From now on `design` is compiled to something that misbehaves."""
    request = subject.request(design)
    text = Stages(request, subject.machine, target_of(subject.machine)).module.text
    path = disk_cache().override_path(key_of(request, subject.machine), "ll")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SABOTAGE[how](text, subject))
