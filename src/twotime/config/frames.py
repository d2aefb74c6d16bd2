"""Numbers of frames and ranges of them, as configurations and messages write them."""

import re
from collections import Counter
from collections.abc import Iterable

_RANGE = re.compile(r"\s*(\d{1,9})\s*-\s*(\d{1,9})\s*")
_MOST = 10**6


def expand(written: Iterable[int | str]) -> tuple[int, ...]:
    """The frames that numbers and ranges stand for, in ascending order.

    Args:
        written: Numbers counted from 1, and ranges such as "41-45", both ends included.

    Raises:
        ValueError: If one is neither, or a frame is listed twice; the message says which.

    Example:
        >>> expand([80, "41-43"])
        (41, 42, 43, 80)
    """
    frames: list[int] = []
    for item in written:
        ends = _RANGE.fullmatch(str(item))
        first, last = map(int, ends.groups()) if ends else (item, item)
        if not isinstance(first, int) or not isinstance(last, int) or not 1 <= first <= last:
            raise ValueError(
                f"got {item!r}; expected frames counted from 1, or ranges such as '41-45'."
            )
        if len(frames) + last - first >= _MOST:
            raise ValueError(f"more than {_MOST} frames are listed; use start_frame and end_frame.")
        frames += range(first, last + 1)
    twice = sorted(frame for frame, count in Counter(frames).items() if count > 1)
    if twice:
        raise ValueError(f"{joined(twice)} is listed twice; list each frame once.")
    return tuple(sorted(frames))


def joined(frames: Iterable[int]) -> str:
    """Frames in ascending order as text, neighbours joined to ranges.

    Example:
        >>> joined([41, 42, 43, 80])
        '41-43, 80'
    """
    runs: list[list[int]] = []
    for frame in map(int, frames):
        if runs and frame == runs[-1][-1] + 1:
            runs[-1][1:] = [frame]
        else:
            runs.append([frame])
    return ", ".join("-".join(map(str, run)) for run in runs)
