"""Losses in one kernel that overwrites the logits with their gradient: it reads the logits twice, the second time from
the cache, and writes once; `cross_entropy` and torch's KL divergence take a dozen passes.

Shapes: K rows, V vocabulary. Rows may be further apart than V: on a GPU, the logits are a view of a wider matrix.
"""

import torch
import triton
import triton.language as tl

from ...training.cross_entropy import inplace_cross_entropy

BLOCK, NUM_WARPS = 2048, 8
NO_COLUMN = tl.constexpr(2147483647)
FINITE = tl.constexpr(-3.0e38)  # stands for minus infinity where that would be subtracted from itself


@triton.jit
def load_row(at, columns, n_symbols):
    """Part of a row in fp32; minus infinity beyond its end."""
    return tl.load(at + columns, mask=columns < n_symbols, other=float("-inf")).to(tl.float32)


@triton.jit
def cross_entropy_kernel(logits, stride, target, loss, correct, n_symbols, BLOCK: tl.constexpr):
    """-ln softmax(z)[y] of a row, and softmax(z) - onehot(y) in place of z."""
    row = tl.program_id(0)
    at = logits + row.to(tl.int64) * stride
    y = tl.load(target + row)
    m = tl.full((BLOCK,), float("-inf"), tl.float32)  # a maximum and a sum for each lane: one reduction at the end
    s = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n_symbols, BLOCK):
        z = load_row(at, start + tl.arange(0, BLOCK), n_symbols)
        high = tl.maximum(tl.maximum(m, z), FINITE)
        s = s * tl.exp(m - high) + tl.exp(z - high)
        m = high
    top = tl.max(m, axis=0)
    total = tl.sum(s * tl.exp(m - top), axis=0)
    tl.store(loss + row, tl.log(total) + top - tl.load(at + y).to(tl.float32))
    first = tl.full((BLOCK,), NO_COLUMN, tl.int32)  # of equal largest logits, the first, as in torch's argmax
    tl.debug_barrier()  # all threads have read z[y] before it is overwritten
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z = load_row(at, columns, n_symbols)
        first = tl.minimum(first, tl.where(z == top, columns, NO_COLUMN))
        p = tl.exp(z - top) / total
        gradient = tl.where(columns == y, p - 1.0, p)
        tl.store(at + columns, gradient.to(logits.dtype.element_ty), mask=columns < n_symbols)
    tl.store(correct + row, (tl.min(first, axis=0) == y).to(tl.int32))


@triton.jit
def distillation_kernel(logits, stride, teacher, teacher_stride, target, weight, mlm, kd, correct, n_symbols, kd_weight,
                        inverse_temperature, BLOCK: tl.constexpr):
    """With student z, teacher u, temperature T: -ln softmax(z)[y] and KL(softmax(u / T) || softmax(z / T)) of a row; in
    place of z, (1 - w) (softmax(z) - onehot(y)) + w weight T (softmax(z / T) - softmax(u / T))."""
    row = tl.program_id(0)
    z_at = logits + row.to(tl.int64) * stride
    u_at = teacher + row.to(tl.int64) * teacher_stride
    y = tl.load(target + row)
    m = tl.full((BLOCK,), float("-inf"), tl.float32)  # of z
    s = tl.zeros((BLOCK,), tl.float32)  # sum of e^(z - m)
    s_soft = tl.zeros((BLOCK,), tl.float32)  # sum of e^((z - m) / T)
    m_u = tl.full((BLOCK,), float("-inf"), tl.float32)  # of u
    s_u = tl.zeros((BLOCK,), tl.float32)  # sum of e^((u - m_u) / T)
    a = tl.zeros((BLOCK,), tl.float32)  # sum of e^((u - m_u) / T) (u - z) / T
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z, u = load_row(z_at, columns, n_symbols), load_row(u_at, columns, n_symbols)
        high = tl.maximum(tl.maximum(m, z), FINITE)
        s = s * tl.exp(m - high) + tl.exp(z - high)
        s_soft = s_soft * tl.exp((m - high) * inverse_temperature) + tl.exp((z - high) * inverse_temperature)
        m = high
        high = tl.maximum(tl.maximum(m_u, u), FINITE)
        c = tl.exp((m_u - high) * inverse_temperature)
        e = tl.exp((u - high) * inverse_temperature)
        s_u = s_u * c + e
        a = a * c + tl.where(columns < n_symbols, e * (u - z) * inverse_temperature, 0.0)
        m_u = high
    top, top_u = tl.max(m, axis=0), tl.max(m_u, axis=0)
    total = tl.sum(s * tl.exp(m - top), axis=0)
    total_soft = tl.sum(s_soft * tl.exp((m - top) * inverse_temperature), axis=0)
    c = tl.exp((m_u - top_u) * inverse_temperature)
    total_u = tl.sum(s_u * c, axis=0)
    tl.store(mlm + row, tl.log(total) + top - tl.load(z_at + y).to(tl.float32))
    lse_soft = tl.log(total_soft) + top * inverse_temperature
    lse_u = tl.log(total_u) + top_u * inverse_temperature
    tl.store(kd + row, tl.sum(a * c, axis=0) / total_u + lse_soft - lse_u)
    first = tl.full((BLOCK,), NO_COLUMN, tl.int32)
    kd_factor = kd_weight * tl.load(weight + row) / inverse_temperature
    tl.debug_barrier()  # as in `cross_entropy_kernel`
    for start in range(0, n_symbols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z, u = load_row(z_at, columns, n_symbols), load_row(u_at, columns, n_symbols)
        first = tl.minimum(first, tl.where(z == top, columns, NO_COLUMN))
        p = tl.exp(z - top) / total
        p_soft = tl.exp((z - top) * inverse_temperature) / total_soft
        q_soft = tl.exp((u - top_u) * inverse_temperature) / total_u
        gradient = (1.0 - kd_weight) * tl.where(columns == y, p - 1.0, p) + kd_factor * (p_soft - q_soft)
        tl.store(z_at + columns, gradient.to(logits.dtype.element_ty), mask=columns < n_symbols)
    tl.store(correct + row, (tl.min(first, axis=0) == y).to(tl.int32))


@triton.jit
def scale_kernel(x, stride, n_columns, factor, BLOCK: tl.constexpr):
    """x *= factor, unless the factor is 1; its value is known only on the device."""
    by = tl.load(factor)
    if by != 1.0:
        at = x + tl.program_id(0).to(tl.int64) * stride
        for start in range(0, n_columns, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            scaled = load_row(at, columns, n_columns) * by
            tl.store(at + columns, scaled.to(x.dtype.element_ty), mask=columns < n_columns)


def launch(kernel, logits, *arguments):
    """A program for each row."""
    assert logits.stride(1) == 1, "the columns of a row must lie side by side"
    if len(logits):
        kernel[(len(logits),)](logits, logits.stride(0), *arguments, BLOCK=BLOCK, num_warps=NUM_WARPS)


def scaled_in_place(x, factor):
    """K x V times a 0-dim tensor."""
    launch(scale_kernel, x, x.size(1), factor.float())
    return x


def of_each_row(logits, *types):
    return (torch.empty(len(logits), dtype=dtype, device=logits.device) for dtype in types)


class FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        """See `fused_cross_entropy`."""
        loss, correct = of_each_row(logits, torch.float32, torch.int32)
        launch(cross_entropy_kernel, logits, target, loss, correct, logits.size(1))
        ctx.gradient, correct = logits, correct.sum()
        ctx.mark_non_differentiable(correct)
        return loss.sum(), correct

    @staticmethod
    def backward(ctx, gradient, _):
        return scaled_in_place(ctx.gradient, gradient), None


def fused_cross_entropy(logits, target):
    """As `cross_entropy.inplace_cross_entropy`, which is called for what this kernel does not do: a loss without
    gradient, and fp16."""
    if torch.is_grad_enabled() and logits.requires_grad and logits.dtype != torch.float16:
        return FusedCrossEntropy.apply(logits, target)
    return inplace_cross_entropy(logits, target)


class FusedDistillation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, teacher_logits, target, weight, kd_weight, temperature):
        """(1 - w) MLM + w KD of the rows, as sums; the logits' memory becomes their gradient.

        Args:
            ctx: torch's, keeps the gradient for `backward`.
            logits: K x V, the student's.
            teacher_logits: K x V.
            target: K int64.
            weight: K fp32, of each row in KD.
            kd_weight: w, in [0, 1].
            temperature: T, of KD's softmaxes.
        Returns:
            loss, MLM loss, KD loss (weighted, times T^2): 0-dim fp32, nats; correct predictions, 0-dim int64. The loss
            alone has a gradient.
        """
        mlm, kd, correct = of_each_row(logits, torch.float32, torch.float32, torch.int32)
        launch(distillation_kernel, logits, teacher_logits, teacher_logits.stride(0), target, weight, mlm, kd, correct,
               logits.size(1), float(kd_weight), 1.0 / temperature)
        ctx.gradient = logits
        mlm, kd, correct = mlm.sum(), temperature**2 * (weight * kd).sum(), correct.sum()
        ctx.mark_non_differentiable(mlm, kd, correct)
        return (1 - kd_weight) * mlm + kd_weight * kd, mlm, kd, correct

    @staticmethod
    def backward(ctx, gradient, *_):
        return scaled_in_place(ctx.gradient, gradient), None, None, None, None, None
