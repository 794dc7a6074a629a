"""Entropy of a masked language model's prediction at every position, in nats (paper, section 2.1).

Shapes: N rows (positions), V vocabulary, C width.
"""

import torch
import torch.nn.functional as F

CHUNK_ROWS = 256  # below 64 rows the matrix product gets slow; above 256 the logits no longer stay in the cache


def entropy(logits):
    """Entropy of softmax(logits) over the last dimension, exact in fp32 also for confident predictions.

    The textbook logsumexp(z) - sum(p z) cancels: below 1e-5 nats nothing but rounding is left. With the largest
    logit taken out, x = z - max, r = sum of e^x and t = sum of x e^x over all entries but that one,

        H = log(1 + r) - t / (1 + r)

    adds two terms that are both positive.

    Args:
        logits: ... x V, any float type; -inf is a probability of zero.
    Returns:
        ... fp32, nats, between 0 and ln V.
    """
    logits = logits.float()
    largest, at = logits.max(dim=-1, keepdim=True)
    x = (logits - largest).clamp_(min=-200.0)  # e^-200 is 0 in fp32, and 0 times -200 is 0 where -inf would give nan
    e = x.exp().scatter_(-1, at, 0.0)
    r = e.sum(dim=-1)
    t = x.mul_(e).sum(dim=-1)
    return torch.log1p(r) - t / (1.0 + r)


@torch.no_grad()
def projected_entropy(hidden, weight, bias, chunk_rows=CHUNK_ROWS):
    """Entropy of softmax(hidden @ weight.T + bias), without ever holding the logits of more than `chunk_rows` rows.

    Args:
        hidden: ... x C, input of the output projection.
        weight: V x C.
        bias: V.
    Returns:
        ... fp32, nats. The projection runs in fp32 whatever the type of its operands.
    """
    weight, bias = weight.float(), bias.float()
    rows = hidden.reshape(-1, hidden.size(-1))
    result = torch.empty(rows.size(0), dtype=torch.float32, device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):  # a caller's autocast would round the logits to bf16
        for start in range(0, rows.size(0), chunk_rows):
            chunk = rows[start : start + chunk_rows].float()
            result[start : start + chunk_rows] = entropy(F.linear(chunk, weight, bias))
    return result.view(hidden.shape[:-1])
