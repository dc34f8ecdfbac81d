"""The heads of msgpack values: the meaning of a value's first byte, and a walk from head to head.

Without NumPy, since commands that only send need it too.
"""

Payload = bytes | bytearray | memoryview


def _heads() -> tuple[list[int], list[int], list[int], list[int]]:
    """By the first byte of a value: bytes to the next head, decoded size, bytes of the length in its head,
    and the decoded size for each unit of that length."""
    distance, size, length_bytes, each = [1] * 256, [0] * 256, [0] * 256, [0] * 256
    place, number, text, extension = 8, 32, 48, 80
    for head in range(256):
        if 0x80 <= head <= 0x8F:
            size[head] = place + _dict_bytes(head & 0x0F)
        elif 0x90 <= head <= 0x9F:
            size[head] = place + 64
        elif 0xA0 <= head <= 0xBF:
            distance[head] = 1 + (head & 0x1F)
            size[head] = place + (text + (head & 0x1F) if head > 0xA1 else 0)  # short ones exist once
        else:
            size[head] = place + (number if 0xE0 <= head < 0xFB else 0)
    for head, fixed in {0xC4: 2, 0xC5: 3, 0xC6: 5, 0xD9: 2, 0xDA: 3, 0xDB: 5}.items():
        distance[head], size[head], length_bytes[head], each[head] = fixed, place + text, fixed - 1, 1
    for head, fixed in {0xC7: 3, 0xC8: 4, 0xC9: 6}.items():
        distance[head], size[head] = fixed, place + extension + text
        length_bytes[head], each[head] = fixed - 2, 1
    for head, bits in {0xCA: 32, 0xCB: 64, 0xCC: 8, 0xCD: 16, 0xCE: 32, 0xCF: 64}.items():
        distance[head], size[head] = 1 + bits // 8, place + number
    for head, bits in {0xD0: 8, 0xD1: 16, 0xD2: 32, 0xD3: 64}.items():
        distance[head], size[head] = 1 + bits // 8, place + number
    for head, content in {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}.items():
        distance[head], size[head] = 2 + content, place + extension + text + content
    for head, fixed in {0xDC: 3, 0xDD: 5}.items():
        distance[head], size[head], length_bytes[head] = fixed, place + 64, fixed - 1
    for head, fixed in {0xDE: 3, 0xDF: 5}.items():
        distance[head], size[head], length_bytes[head] = fixed, place + _dict_bytes(1), fixed - 1
        each[head] = _ENTRY_BYTES
    return distance, size, length_bytes, each


_ENTRY_BYTES = 40
"""Of a dict, in addition to the places of key and value."""


def _dict_bytes(entries: int) -> int:
    """A dict, without the places of its keys and values, which are counted with these."""
    return 64 if not entries else 224 - 16 * min(entries, 5) + _ENTRY_BYTES * max(0, entries - 5)


DISTANCE, SIZE, LENGTH_BYTES, EACH = _heads()
_NEVER_USED = 0xC1
_CHILDREN = [
    2 * (head & 0x0F) if 0x80 <= head <= 0x8F else head & 0x0F if 0x90 <= head <= 0x9F else 0
    for head in range(256)
]
"""Values that follow a head; for arrays and maps of 16 or more, its length gives the number."""


def heads_of(payload: Payload, position: int, left: int, most: int) -> tuple[int, int, int]:
    """Walks over the heads of the `left` values from `position` on, and of their contents: `most` at a time.

    Returns how many heads it walked over, fewer if the payload ends; the position of the next one, maybe
    past the payload; and how many values are left, -1 if the payload is not msgpack.
    """
    size = len(payload)
    for walked in range(most):
        if not left or position >= size:
            return walked, position, left
        head = payload[position]
        if head == _NEVER_USED:
            return walked, position, -1
        width = LENGTH_BYTES[head]
        if width:
            behind = position + 1 + width
            if behind > size:
                return walked, position, left
            length = int.from_bytes(payload[position + 1 : behind], "big")
            if 0xDC <= head <= 0xDF:
                left += length * (2 if head >= 0xDE else 1)
            else:
                position += length
        left += _CHILDREN[head] - 1
        position += DISTANCE[head]
    return most, position, left
