"""Triton kernels of `semantic_composite`; launched by `semantic_composite_triton.py`."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rays"])
def semantic_forward_kernel(
    alpha,  # (R, K)
    semantics,  # (R, K, N)
    labels,  # (R, K) int64, out
    semantic_map,  # (R, N), out
    rays,
    hit_count,
    channels,
    RAYS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    channel = tl.arange(0, CHANNELS)
    here = ray < rays
    inside = here[:, None] & (channel < channels)[None, :]
    running = tl.zeros((RAYS, CHANNELS), tl.float32)  # C_{k+1}
    for step in range(hit_count):
        hit = ray * hit_count + hit_count - 1 - step
        a = tl.load(alpha + hit, mask=here, other=0.0)[:, None]
        s = tl.load(semantics + hit[:, None] * channels + channel[None, :], mask=inside, other=0.0)
        running = a * s + (1 - a) * running
        score = tl.where(running == running, running, float("inf"))  # NaN wins, as in torch
        label = tl.argmax(tl.where(inside, score, float("-inf")), 1)
        tl.store(labels + hit, label.to(tl.int64), mask=here)
    tl.store(semantic_map + ray[:, None] * channels + channel[None, :], running, mask=inside)


@triton.jit(do_not_specialize=["rays"])
def color_forward_kernel(
    alpha,  # (R, K)
    colors,  # (R, K, C)
    depths,  # (R, K)
    color,  # (R, C), out
    depth,  # (R,), out
    weights,  # (R, K), out
    rays,
    hit_count,
    channels,
    RAYS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    channel = tl.arange(0, CHANNELS)
    here = ray < rays
    inside = here[:, None] & (channel < channels)[None, :]
    transmittance = tl.full((RAYS,), 1.0, tl.float32)
    total = tl.zeros((RAYS,), tl.float32)
    distance = tl.zeros((RAYS,), tl.float32)
    mixed = tl.zeros((RAYS, CHANNELS), tl.float32)
    for k in range(hit_count):
        hit = ray * hit_count + k
        a = tl.load(alpha + hit, mask=here, other=0.0)
        c = tl.load(colors + hit[:, None] * channels + channel[None, :], mask=inside, other=0.0)
        w = a * transmittance
        transmittance = transmittance * (1 - a)
        total += w
        distance += w * tl.load(depths + hit, mask=here, other=0.0)
        mixed += w[:, None] * c
        tl.store(weights + hit, w, mask=here)
    tl.store(depth + ray, distance / tl.where(total > 0, total, 1.0), mask=here)
    tl.store(color + ray[:, None] * channels + channel[None, :], mixed, mask=inside)


@triton.jit
def _behind(far_through, far_value, near_through, near_value):
    """What two neighbouring stretches of a ray do together to the value behind them."""
    return far_through * near_through, near_value + near_through * far_value


@triton.jit(do_not_specialize=["rays"])
def backward_kernel(
    grad_mixed,  # (R, C) gradient of sum_k w_k values_k
    grad_depth,  # (R,)
    grad_weights,  # (R, K)
    alpha,  # (R, K)
    values,  # (R, K, C)
    depths,  # (R, K)
    depth,  # (R,)
    grad_alpha,  # (R, K), out
    grad_values,  # (R, K, C), out
    grad_depths,  # (R, K), out
    rays,
    hit_count,
    channels,
    DEPTH: tl.constexpr,  # False: the mix is the only output, and there are no depths
    NEED_ALPHA: tl.constexpr,
    NEED_VALUES: tl.constexpr,
    NEED_DEPTHS: tl.constexpr,
    RAYS: tl.constexpr,
    HITS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """d alpha_k = T_k (q_k - Q_{k+1}): q_k is the gradient of w_k, Q what lies behind adds up to.

    Q_k = alpha_k q_k + (1 - alpha_k) Q_{k+1}: one number a hit, whatever the number of channels.
    """
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    k = tl.arange(0, HITS)
    channel = tl.arange(0, CHANNELS)
    here = ray < rays
    hit = ray[:, None] * hit_count + k[None, :]  # (RAYS, HITS)
    on_ray = here[:, None] & (k < hit_count)[None, :]
    entry = hit[:, :, None] * channels + channel[None, None, :]  # (RAYS, HITS, CHANNELS)
    in_entry = on_ray[:, :, None] & (channel < channels)[None, None, :]

    a = tl.load(alpha + hit, mask=on_ray, other=0.0)
    before = tl.load(alpha + hit - 1, mask=on_ray & (k > 0)[None, :], other=0.0)
    transmittance = tl.cumprod(1 - before, 1)
    w = a * transmittance
    g = tl.load(
        grad_mixed + ray[:, None] * channels + channel[None, :],
        mask=here[:, None] & (channel < channels)[None, :],
        other=0.0,
    )
    if DEPTH:
        total = tl.sum(w, 1)
        g_depth = tl.load(grad_depth + ray, mask=here, other=0.0) / tl.where(total > 0, total, 1.0)
    if NEED_VALUES:
        tl.store(grad_values + entry, w[:, :, None] * g[:, None, :], mask=in_entry)
    if NEED_DEPTHS:
        tl.store(grad_depths + hit, w * g_depth[:, None], mask=on_ray)
    if NEED_ALPHA:
        q = tl.sum(tl.load(values + entry, mask=in_entry, other=0.0) * g[:, None, :], 2)
        if DEPTH:
            z = tl.load(depths + hit, mask=on_ray, other=0.0)
            mean = tl.load(depth + ray, mask=here, other=0.0)
            q += tl.load(grad_weights + hit, mask=on_ray, other=0.0)
            q += g_depth[:, None] * (z - mean[:, None])
        behind = on_ray & (k + 1 < hit_count)[None, :]
        next_a = tl.load(alpha + hit + 1, mask=behind, other=0.0)
        following = tl.minimum(k + 1, HITS - 1)[None, :] + tl.zeros((RAYS, HITS), tl.int32)
        next_q = tl.gather(q, following, 1)
        _, rest = tl.associative_scan((1 - next_a, next_a * next_q), 1, _behind, reverse=True)
        tl.store(grad_alpha + hit, transmittance * (q - rest), mask=on_ray)
