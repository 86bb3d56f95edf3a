"""Makes one AES-GCM ciphertext that two keys accept, as the literature on key commitment describes ("invisible
salamanders"): two ciphertext blocks solve the equation that both keys' tags are equal.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def ciphertext_for_two_keys(first: bytes, second: bytes, nonce: bytes, free_block: bytes) -> bytes:
    """Two blocks and a tag: under each key and this nonce AES-256-GCM opens it, to two different plaintexts."""
    hashes = [_block(key, bytes(16)) for key in (first, second)]
    masks = [_block(key, nonce + b"\0\0\0\1") for key in (first, second)]
    chosen, length = int.from_bytes(free_block, "big"), 256

    def without_second_block(hash_: int, mask: int) -> int:
        return _times(chosen, _times(_times(hash_, hash_), hash_)) ^ _times(length, hash_) ^ mask

    difference = without_second_block(hashes[0], masks[0]) ^ without_second_block(hashes[1], masks[1])
    squares = [_times(hash_, hash_) for hash_ in hashes]
    solved = _times(difference, _inverse(squares[0] ^ squares[1]))
    tag = without_second_block(hashes[0], masks[0]) ^ _times(solved, squares[0])
    return b"".join(block.to_bytes(16, "big") for block in (chosen, solved, tag))


def _block(key: bytes, block: bytes) -> int:
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305  # what GCM is made of
    return int.from_bytes(encryptor.update(block) + encryptor.finalize(), "big")


def _times(left: int, right: int) -> int:
    """In GCM's field: bit 0 is the leftmost, reduction by 1 + x + x² + x⁷ + x¹²⁸."""
    product = 0
    for bit in range(127, -1, -1):
        if right >> bit & 1:
            product ^= left
        left = left >> 1 ^ (0xE1 << 120 if left & 1 else 0)
    return product


def _inverse(value: int) -> int:
    """value to the power 2¹²⁸ - 2."""
    result, power = 1 << 127, value
    for _ in range(127):
        power = _times(power, power)
        result = _times(result, power)
    return result
