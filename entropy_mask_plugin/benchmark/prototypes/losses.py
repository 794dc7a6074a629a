"""Losses in one kernel, whose gradient takes the logits' place: a row is read twice and written once.

Shapes: K selected positions, V vocabulary. Rows of logits may be further apart than V (see models/projection.py).
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

BLOCK, WARPS = 2048, 8
LOWEST = tl.constexpr(-3.0e38)  # for a maximum of nothing: -inf minus -inf is nan


@triton.jit
def running_sum(m, s, z, scale):
    """Of e^(scale z) in each lane, beside its largest z: (m, s) with one more z."""
    high = tl.maximum(m, z)
    safe = tl.maximum(high, LOWEST)
    return high, s * tl.exp((m - safe) * scale) + tl.exp((z - safe) * scale)


@triton.jit
def cross_entropy_kernel(logits, stride, target, loss, correct, n_symbols, BLOCK: tl.constexpr):
    """One row a program: loss = lse(z) - z_y, and in place of z, softmax(z) - onehot(y)."""
    row = tl.program_id(0)
    at = logits + row.to(tl.int64) * stride
    wanted = tl.load(target + row)
    m = tl.full((BLOCK,), float("-inf"), tl.float32)
    s = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z = tl.load(at + columns, mask=columns < n_symbols, other=float("-inf")).to(tl.float32)
        m, s = running_sum(m, s, z, 1.0)
    top = tl.max(m, axis=0)
    total = tl.sum(s * tl.exp(m - top), axis=0)
    tl.store(loss + row, tl.log(total) + top - tl.load(at + wanted).to(tl.float32))
    first = tl.full((BLOCK,), 2147483647, tl.int32)  # of the largest, the first, as torch's argmax
    tl.debug_barrier()  # all lanes have read the target's logit before it is overwritten
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        there = columns < n_symbols
        z = tl.load(at + columns, mask=there, other=float("-inf")).to(tl.float32)
        first = tl.minimum(first, tl.where(z == top, columns, 2147483647))
        p = tl.exp(z - top) / total
        tl.store(at + columns, tl.where(columns == wanted, p - 1.0, p).to(logits.dtype.element_ty), mask=there)
    tl.store(correct + row, (tl.min(first, axis=0) == wanted).to(tl.int32))


@triton.jit
def distillation_kernel(logits, stride, teacher, teacher_stride, target, weight, mlm, kd, correct, n_symbols, mix,
                        inverse_temperature, BLOCK: tl.constexpr):
    """One row a program, with T the temperature, u the teacher's logits: mlm = lse(z) - z_y,
    kd = KL(softmax(u / T) || softmax(z / T)), and in place of z
    (1 - mix) (softmax(z) - onehot(y)) + mix weight T (softmax(z / T) - softmax(u / T))."""
    row = tl.program_id(0)
    z_at = logits + row.to(tl.int64) * stride
    u_at = teacher + row.to(tl.int64) * teacher_stride
    wanted = tl.load(target + row)
    m = tl.full((BLOCK,), float("-inf"), tl.float32)  # of z
    s = tl.zeros((BLOCK,), tl.float32)  # sum e^(z - m)
    s_soft = tl.zeros((BLOCK,), tl.float32)  # sum e^((z - m) / T)
    m_u = tl.full((BLOCK,), float("-inf"), tl.float32)  # of u
    s_u = tl.zeros((BLOCK,), tl.float32)  # sum e^((u - m_u) / T)
    a = tl.zeros((BLOCK,), tl.float32)  # sum e^((u - m_u) / T) (u - z) / T
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        there = columns < n_symbols
        z = tl.load(z_at + columns, mask=there, other=float("-inf")).to(tl.float32)
        u = tl.load(u_at + columns, mask=there, other=float("-inf")).to(tl.float32)
        _, s_soft = running_sum(m, s_soft, z, inverse_temperature)
        m, s = running_sum(m, s, z, 1.0)
        high = tl.maximum(m_u, u)
        safe = tl.maximum(high, LOWEST)
        c = tl.exp((m_u - safe) * inverse_temperature)
        e = tl.exp((u - safe) * inverse_temperature)
        s_u = s_u * c + e
        a = a * c + tl.where(there & (u > LOWEST), e * (u - z) * inverse_temperature, 0.0)
        m_u = high
    top, top_u = tl.max(m, axis=0), tl.max(m_u, axis=0)
    total = tl.sum(s * tl.exp(m - top), axis=0)
    total_soft = tl.sum(s_soft * tl.exp((m - top) * inverse_temperature), axis=0)
    c = tl.exp((m_u - top_u) * inverse_temperature)
    total_u = tl.sum(s_u * c, axis=0)
    tl.store(mlm + row, tl.log(total) + top - tl.load(z_at + wanted).to(tl.float32))
    lse_soft = tl.log(total_soft) + top * inverse_temperature
    lse_u = tl.log(total_u) + top_u * inverse_temperature
    tl.store(kd + row, tl.sum(a * c, axis=0) / total_u + lse_soft - lse_u)
    first = tl.full((BLOCK,), 2147483647, tl.int32)
    share = mix * tl.load(weight + row) / inverse_temperature  # mix weight T
    tl.debug_barrier()
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        there = columns < n_symbols
        z = tl.load(z_at + columns, mask=there, other=float("-inf")).to(tl.float32)
        u = tl.load(u_at + columns, mask=there, other=float("-inf")).to(tl.float32)
        first = tl.minimum(first, tl.where(z == top, columns, 2147483647))
        p = tl.exp(z - top) / total
        p = tl.where(columns == wanted, p - 1.0, p)
        p_soft = tl.exp((z - top) * inverse_temperature) / total_soft
        q = tl.exp((u - top_u) * inverse_temperature) / total_u
        gradient = (1.0 - mix) * p + share * (p_soft - q)
        tl.store(z_at + columns, gradient.to(logits.dtype.element_ty), mask=there)
    tl.store(correct + row, (tl.min(first, axis=0) == wanted).to(tl.int32))


@triton.jit
def scale_kernel(x, stride, n_columns, factor, BLOCK: tl.constexpr):
    """x *= factor, unless the factor, which the device alone knows, is 1."""
    by = tl.load(factor)
    if by != 1.0:
        at = x + tl.program_id(0).to(tl.int64) * stride
        for start in range(0, n_columns, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            there = columns < n_columns
            scaled = tl.load(at + columns, mask=there).to(tl.float32) * by
            tl.store(at + columns, scaled.to(x.dtype.element_ty), mask=there)


def scaled(x, factor):
    """x, K x V, multiplied in place by a 0-dim tensor."""
    if len(x):
        scale_kernel[(len(x),)](x, x.stride(0), x.size(1), factor.float(), BLOCK=BLOCK, num_warps=WARPS)
    return x


def results_for(logits):
    """Empty K fp32, K fp32, K int32."""
    sums = torch.empty(2, len(logits), dtype=torch.float32, device=logits.device)
    return *sums, torch.empty(len(logits), dtype=torch.int32, device=logits.device)


class FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        loss, _, correct = results_for(logits)
        if len(logits):
            cross_entropy_kernel[(len(logits),)](logits, logits.stride(0), target, loss, correct, logits.size(1),
                                                 BLOCK=BLOCK, num_warps=WARPS)
        ctx.gradient, correct = logits, correct.sum()
        ctx.mark_non_differentiable(correct)
        return loss.sum(), correct

    @staticmethod
    def backward(ctx, gradient, _):
        return scaled(ctx.gradient, gradient), None


def fused_cross_entropy(logits, target):
    """As `cross_entropy.cross_entropy_of_consumed`."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return FusedCrossEntropy.apply(logits, target)
    return F.cross_entropy(logits.float(), target, reduction="sum"), logits.argmax(dim=-1).eq(target).sum()


class FusedDistillation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, teacher_logits, target, weight, mix, temperature):
        """logits, teacher_logits K x V; target K; weight K fp32, of the KD term. Returns the loss that is trained on,
        (1 - mix) MLM + mix KD, the MLM sum, the KD sum (weighted, times T^2), the number of correct predictions."""
        mlm, kd, correct = results_for(logits)
        if len(logits):
            distillation_kernel[(len(logits),)](
                logits, logits.stride(0), teacher_logits, teacher_logits.stride(0), target, weight, mlm, kd, correct,
                logits.size(1), mix, 1.0 / temperature, BLOCK=BLOCK, num_warps=WARPS)
        ctx.gradient = logits
        mlm, kd, correct = mlm.sum(), temperature**2 * (weight * kd).sum(), correct.sum()
        ctx.mark_non_differentiable(mlm, kd, correct)
        return (1 - mix) * mlm + mix * kd, mlm, kd, correct

    @staticmethod
    def backward(ctx, gradient, *_):
        return scaled(ctx.gradient, gradient), None, None, None, None, None
