"""PictureKind: what the headers of one packet say about who depends on whom. A value; it reads no bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureKind:
    """What may be left out when the packet's picture, or another's, is wanted.

    `random_access`: decoding may begin here. `reference`: other pictures of the same or a higher sub-layer may use it.
    `inherits`: it takes more than reference pictures from the picture decoded just before, which then must be fed.
    `shown`: the packet puts a picture out. `sublayer`: the temporal sub-layer, 0 where a codec has none. `parameters`:
    the parameter sets in the packet, in order, which hold for it and for what follows. `packed`: it holds several
    pictures to be shown, which the decoder puts out one by one with the packets that follow. `second_field`: it
    completes the frame whose first field is the packet before it.
    """

    random_access: bool
    reference: bool = True
    inherits: bool = False
    shown: bool = True
    sublayer: int = 0
    parameters: tuple[bytes, ...] = ()
    packed: bool = False
    second_field: bool = False
