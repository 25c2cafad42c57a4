"""Samples that lie in a file as they are: how many there must be, and their values.

Headers are parsed by the readers of WAV, AIFF and so on; libsndfile is given bare samples and does
nothing but convert. What a header says of the length is held against the file: writers that cannot
seek back leave a placeholder, 32 bits wrap after 4 GiB, a recorder that dies leaves an old size.
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile as sf

from models.formats.file import File
from models.formats.magic import kind_at
from models.formats.sound import Blocks, ContainerError, Floats, Sound, block_frames, stop
from models.formats.tags import MAX_ZEROS, after_tags, after_zeros

STREAMED = 0xFFFF_FFFF
PLACEHOLDER = 0x7FFF_F000  # sizes from here on that exceed the file tell nothing: sox, arecord, ...
_USUAL = ((PLACEHOLDER, 0x8000_1000), (0xFFFF_0000, STREAMED))  # what those writers leave
_WRAP = 1 << 32
MAX_HEAD_BYTES = 24  # of a chunk, before its content

NextChunk = Callable[[File, int], int | None]
"""The offset behind the chunk at an offset, None where there is no chunk that makes sense."""
IsHeader = Callable[[bytes], bool]
"""Whether these bytes begin another recording."""


@dataclass(frozen=True)
class Layout:
    """How the samples of a file are packed.

    Attributes:
        container: in short.
        subtype: in libsndfile's words.
        frame_bytes: of a sample in every channel.
        gain: what the values are multiplied by.
    """

    container: str
    subtype: str
    channels: int
    rate: int
    frame_bytes: int
    endian: Literal["LITTLE", "BIG"] = "LITTLE"
    gain: float = 1.0


@dataclass(frozen=True)
class Extent:
    """Where the samples are, in bytes, and where the header says that they end."""

    start: int
    stop: int
    claimed: int

    @property
    def n_bytes(self) -> int:
        """Bytes that are there."""
        return self.stop - self.start

    @property
    def is_cut(self) -> bool:
        """Whether the header promises more."""
        return self.claimed > self.stop


@dataclass(frozen=True)
class Rules:
    """What one container says of lengths.

    Attributes:
        next_chunk: what may follow the samples.
        samples: name of the chunk that holds them.
        magic: what another recording of this kind begins with.
        is_header: whether bytes with the magic do begin one.
        wraps: whether sizes have 32 bits.
        align: chunks begin at multiples of this; what `next_chunk` skips by itself.
    """

    next_chunk: NextChunk
    samples: bytes
    magic: bytes
    is_header: IsHeader
    wraps: bool = True
    align: int = 1


def find_samples(
    file: File,
    layout: Layout,
    start: int,
    claimed: int | None,
    rules: Rules,
    *,
    header_bytes: int = 0,
    is_whole: bool = False,
) -> Extent:
    """Where the samples that begin at `start` end.

    Args:
        file: the file.
        layout: of the samples; for the words of a warning.
        start: offset in bytes.
        claimed: bytes that the header tells; None where it says that it does not know.
        rules: of the container.
        header_bytes: what sloppy writers count in.
        is_whole: whether the header's other size says that the file is all there.
    """
    held = file.size - start
    if claimed is None or (claimed > held and rules.wraps and claimed >= PLACEHOLDER):
        if claimed is not None and not any(low <= claimed <= high for low, high in _USUAL):
            file.warn(
                f"The {layout.container} header claims {claimed} bytes, more than 32 bits can be "
                "relied upon for: read to the end of the file, whether or not it was cut."
            )
        return _to_the_end(file, start, rules)
    if claimed > held:
        if is_whole and claimed - held <= header_bytes:
            return Extent(start, file.size, file.size)
        return Extent(start, file.size, start + claimed)
    for n_bytes in _candidates(claimed, held, rules.wraps):
        if ends_here(file, start + n_bytes, rules.next_chunk):
            return Extent(start, start + n_bytes, start + n_bytes)
    found = _to_the_end(file, start, rules, start + claimed)
    seconds = claimed // max(1, layout.frame_bytes) / max(1, layout.rate)
    n_bytes = found.n_bytes - claimed
    file.warn(
        f"The {layout.container} header counts {seconds:.2f} s, and {n_bytes} bytes "
        "behind them are nothing that is known: they were read as samples. Write the header again "
        "if they are, cut them off if not."
    )
    return found


def _candidates(claimed: int, held: int, wraps: bool) -> list[int]:
    """Lengths that a header may mean: what it says, and what it says modulo 4 GiB."""
    wrapped = claimed + (held - claimed) // _WRAP * _WRAP
    return [claimed] if wrapped == claimed or not wraps else [wrapped, claimed]


def ends_here(file: File, offset: int, next_chunk: NextChunk) -> bool:
    """Whether what lies behind the samples makes sense: nothing, chunks, tags, a file, padding."""
    for begin in (offset + offset % 2, offset):
        if file.size - begin < 8 or next_chunk(file, begin) is not None:
            return True
        if after_tags(file, begin) > begin or kind_at(file, begin) is not None:
            return True
    rest = after_zeros(file, offset, MAX_ZEROS + 1)
    if rest == offset or rest - offset > MAX_ZEROS:
        return False
    return rest >= file.size or kind_at(file, rest) is not None or after_tags(file, rest) > rest


def behind(file: File, offset: int, rules: Rules, container: str) -> int:
    """The offset behind the chunks that follow the samples.

    Raises:
        ContainerError: one of them holds samples as well; no container allows a second.
    """
    for begin in (offset + offset % 2, offset):
        if rules.next_chunk(file, begin) is not None:
            offset = begin
            break
    while (after := rules.next_chunk(file, offset)) is not None:
        name = file.at(offset + -offset % rules.align, len(rules.samples))
        if name == rules.samples and after - offset > MAX_HEAD_BYTES:
            raise ContainerError(
                "corrupt",
                f"the {container} file has more than one chunk of samples, which readers take for "
                "its end; export it again",
            )
        offset = after
    return min(offset, file.size)


def _to_the_end(file: File, start: int, rules: Rules, searched: int | None = None) -> Extent:
    """All that follows, up to the next recording of this kind if there is one."""
    offset = start if searched is None else searched
    while (offset := file.find(rules.magic, offset)) >= 0:
        if rules.is_header(file.at(offset, 64)):
            return Extent(start, offset, offset)
        offset += 1
    return Extent(start, file.size, file.size)


def pcm_sound(file: File, layout: Layout, extent: Extent) -> Sound:
    """Describe the samples."""
    frame_bytes = max(1, layout.frame_bytes)  # no channels is refused later
    frames = extent.n_bytes // frame_bytes
    claimed = (extent.claimed - extent.start) // frame_bytes
    blocks = _blocks(file, layout, extent.start, frames, claimed)
    return Sound(
        layout.rate,
        layout.channels,
        frames,
        blocks,
        layout.container,
        layout.subtype,
        is_cut=frames < claimed,
        is_seekable=True,
    )


def _blocks(file: File, layout: Layout, start: int, frames: int, claimed: int) -> Blocks:
    def blocks(first: int) -> Iterator[Floats]:
        if frames < claimed:  # no need to decode what is there
            stop("truncated", layout.container, layout.rate, frames, claimed)
        step = block_frames(layout.rate, layout.channels)
        for frame in range(first, frames, step):
            n_bytes = min(step, frames - frame) * layout.frame_bytes
            file.raw.seek(start + frame * layout.frame_bytes)
            raw = file.raw.read(n_bytes)
            if len(raw) < n_bytes:  # the file has shrunk under our hands
                stop("truncated", layout.container, layout.rate, frame, frames)
            yield _converted(raw, layout)

    return blocks


def _converted(raw: bytes, layout: Layout) -> Floats:
    with sf.SoundFile(  # headerless, so that libsndfile does nothing but convert
        io.BytesIO(raw), "r", layout.rate, layout.channels, layout.subtype, layout.endian, "RAW"
    ) as samples:
        block: Floats = samples.read(dtype="float32", always_2d=True)
    return block if layout.gain == 1 else block * np.float32(layout.gain)


def chunk_rule(order: Literal["<", ">"]) -> NextChunk:
    """Chunks of four letters and a size of 32 bits, padded to an even length."""
    head = struct.Struct(f"{order}4sI")

    def next_chunk(file: File, offset: int) -> int | None:
        read = file.at(offset, 8)
        if len(read) < 8:
            return None
        name, n_bytes = head.unpack(read)
        end = offset + 8 + n_bytes
        is_name = all(0x20 <= byte < 0x7F for byte in name) and not name.isspace()
        if not is_name or end > file.size or kind_at(file, offset) is not None:
            return None
        return int(min(end + n_bytes % 2, file.size))

    return next_chunk
