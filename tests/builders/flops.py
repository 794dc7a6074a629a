"""Counting matrix products."""




def multiplications(width, ffn, layers, vocabulary, length, share):
    """Of one token, forward: (body with everything, head with everything, both at a share of the positions)."""
    attention = 2 * length * width
    layer = 4 * width**2 + attention + 2 * width * ffn
    last = 2 * width**2 + share * (2 * width**2 + attention + 2 * width * ffn)
    head = width**2 + width * vocabulary
    return layers * layer, head, (layers - 1) * layer + last + share * head
