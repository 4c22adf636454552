"""MiSS, RandLoRA, SuperTuning, FourierFT and WaveFT: ΔW for which the size of W is wanting.

MiSS repeats a block along the inputs (and `bat` multiplies W's blocks by it); RandLoRA mixes random
bases that are cut to the weight; SuperTuning has values at places counted through the weight;
FourierFT and WaveFT have coefficients of a transform, at places that a seed draws.
Source: Kang and Yin 2024, "MiSS"; Albert et al. 2025, "RandLoRA"; Gao et al. 2024, "Parameter-
efficient fine-tuning with discrete Fourier transform" (FourierFT); peft 0.21.2, `tuners/miss`,
`tuners/randlora`, `tuners/supertuning`, `tuners/fourierft`, `tuners/waveft`, `get_delta_weight`.
Limits: RandLoRA's bases are not drawn again where the file leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterscan.formats.transforms.transform import ALONE, Method, Transform, require, unknown
from adapterscan.formats.tuners.tuner import Site, Unfit, Values, number, whole, wide
from adapterscan.lowrank import LowRank
from adapterscan.updates.harmonic import drawn, harmonic
from adapterscan.updates.scattered import Scattered, scattered
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.updates.wavelet import haar
from adapterscan.updates.weight import F32, Rows, Weight

_COEFFICIENTS = 1 << 16  # that are drawn; PEFT's default is 1,000
_BASES = ("randlora_A", "randlora_B")


def locate_miss(site: Site) -> Transform:
    """Return the block of a module. `mode`: "miss", "mini" or "bat"."""
    (block,) = site.need("miss_block")
    given = site.config.raw.get("init_weights")
    mode = given if isinstance(given, str) else "miss"
    if mode not in ("miss", "mini", "bat"):
        raise Unfit("has an init_weights that is not known", "unread")
    if not block.numel or len(block.shape) != (3 if mode == "bat" else 2):
        raise Unfit(f"has a block of shape {block.shape}")
    if block.shape[-1 if mode == "bat" else 0] > RANK_LIMIT:
        raise Unfit(f"has a block of shape {block.shape}, over the limit of rank", "unread")
    if mode == "bat" and block.shape[1] != block.shape[2]:
        raise Unfit(f"has a block of shape {block.shape}")
    return Transform(site.module, "miss", (block,), {"mode": mode})


def change_miss(what: Transform, arrays: Sequence[Values], weight: Weight) -> LowRank | Rows:
    """Return the block repeated along the inputs, or W's blocks times it and it added."""
    (d_out, d_in), shape = weight.shape, what.tensors[0].shape
    if what.settings["mode"] == "bat":
        return _bat(arrays[0].astype(np.float32), weight)
    rank = shape[0]
    repeats = d_out // shape[1] if what.settings["mode"] == "mini" else 1
    fits = repeats * shape[1] == d_out and rank <= d_in
    require(fits, f"a block of {shape[0]:,} × {shape[1]:,}", weight)
    lined = np.zeros((rank, d_in), np.float32)
    lined[np.arange(d_in) % rank, np.arange(d_in)] = 1
    return LowRank(lined, np.tile(wide(arrays[0]), (1, repeats)).T)


def _bat(blocks: F32, weight: Weight) -> Rows:
    count, size, _ = blocks.shape
    d_out, d_in = weight.shape
    require(count * size == d_out and d_in % size == 0, f"{count:,} blocks of {size:,}", weight)

    def rows(start: int, block: F32) -> F32:
        number = np.arange(start, start + len(block))
        apart = block.reshape(len(block), d_in // size, size)
        found = np.empty_like(apart)
        for at in np.unique(number // size):
            some = number // size == at
            added = blocks[at][number[some] % size]
            found[some] = apart[some] @ blocks[at] + added[:, None]
        return found.reshape(block.shape)

    return rows


def strength_miss(what: Transform, arrays: Sequence[Values]) -> float | None:
    """Return the root mean square of the block, which is ΔW's; None where it multiplies W."""
    if what.settings["mode"] == "bat":
        return None
    return float(np.sqrt(np.mean(np.square(wide(arrays[0])))))


def locate_randlora(site: Site) -> Transform:
    """Return the mixture of a module and the bases that all share."""
    bases = site.common(*_BASES)
    down, along = site.matrices("randlora_lambda", "randlora_gamma")
    (rank, count), a, b = down.shape, bases[0].shape, bases[1].shape
    if len(a) != 3 or len(b) != 3 or a[:2] != (rank, 1) or b[2] != rank or not rank:
        raise Unfit(f"shares bases of shape {a} and {b}")
    if along.shape[0] != count or along.shape[1] > a[2] or count > b[1]:
        raise Unfit(f"mixes by {down.shape} and {along.shape}")
    if rank * count > RANK_LIMIT:
        raise Unfit(f"has rank {rank * count:,}, over the limit of {RANK_LIMIT:,}", "unread")
    scale = number(site.config, "randlora_alpha", 640.0) / rank
    again = [site.tensors[part] for part in _BASES if part in site.tensors]
    if again and [tensor.shape for tensor in again] != [a, b]:
        raise Unfit("repeats its bases in another shape", "ambiguous")
    return Transform(site.module, "randlora", (*bases, down, along, *again), {"scale": scale})


def change_randlora(what: Transform, arrays: Sequence[Values], weight: Weight) -> LowRank:
    """Return the mixture, cut to the weight: the mixed side is the shorter one."""
    if any(not np.array_equal(*pair) for pair in zip(arrays[:2], arrays[4:], strict=False)):
        raise ValueError("repeats its bases with other values: which count depends on the loader")
    a, b, down, along = map(wide, arrays[:4])
    (rank, count), short, long = down.shape, min(weight.shape), max(weight.shape)
    fits = along.shape[1] == short and long <= len(b) and count == -(-short // rank)
    require(fits, f"{count:,} bases of rank {rank:,} over {along.shape[1]:,}", weight)
    mixed = (down[:, :, None] * a[:, :, :short] * along[None]).reshape(rank * count, short)
    other = b[:long, :count].reshape(long, -1)
    scale = float(what.settings["scale"])
    if short == weight.shape[1]:
        return LowRank(mixed, other, scale)
    return LowRank(other.T, mixed.T, scale)


def locate_supertuning(site: Site) -> Transform:
    """Return places and values of a module, and factors beside them where the config has a rank."""
    places, values = site.need("supertuning_indices", "supertuning_values")
    if len(places.shape) != 1 or places.shape != values.shape or not values.numel:
        raise Unfit(f"has {values.shape} values at places of shape {places.shape}")
    if site.config.raw.get("r"):
        raise Unfit("has a low-rank part beside its values, not read yet", "unread")
    return Transform(site.module, "supertuning", (places, values))


def change_supertuning(_: Transform, arrays: Sequence[Values], weight: Weight) -> Scattered:
    """Return the values at their places in the weight, counted row by row."""
    places, width = arrays[0].astype(np.int64), weight.shape[1]
    return scattered(places // width, places % width, arrays[1], weight.shape)


def locate_fourier(site: Site) -> Transform:
    """Return the coefficients of a module."""
    (coefficients,) = site.need("fourierft_spectrum")
    if len(coefficients.shape) != 1 or not 0 < coefficients.numel <= _COEFFICIENTS:
        raise Unfit(f"has a spectrum of shape {coefficients.shape}")
    settings = {
        "scale": number(site.config, "scaling", 150.0),
        "seed": whole(site.config, "random_loc_seed", 777),
    }
    return Transform(site.module, "fourierft", (coefficients,), settings)


def locate_wavelets(site: Site) -> Transform:
    """Return the coefficients of a module; of other families than Haar's they are not read."""
    (coefficients,) = site.need("waveft_spectrum")
    if len(coefficients.shape) != 1 or not 0 < coefficients.numel <= _COEFFICIENTS:
        raise Unfit(f"has a spectrum of shape {coefficients.shape}")
    turned = site.config.raw.get("use_idwt", True) is not False
    if turned and site.config.raw.get("wavelet_family", "db1") not in ("db1", "haar"):
        raise Unfit("has another wavelet_family than db1, not read yet", "unread")
    settings = {
        "scale": number(site.config, "scaling", 25.0), "turned": turned,
        "seed": whole(site.config, "random_loc_seed", 777),
    }  # fmt: skip
    return Transform(site.module, "waveft", (coefficients,), settings)


def change_wavelets(what: Transform, arrays: Sequence[Values], weight: Weight) -> Scattered:
    """Return the inverse transform of the coefficients, or them alone, at drawn places."""
    count, (d_out, d_in) = len(arrays[0]), weight.shape
    require(count <= d_out * d_in, f"{count:,} coefficients", weight)
    places, scale = drawn(d_out * d_in, count, int(what.settings["seed"])), what.settings["scale"]
    down, across = np.divmod(places, d_in)
    make = haar if what.settings["turned"] else scattered
    return make(down, across, wide(arrays[0]), weight.shape, float(scale))


def change_fourier(what: Transform, arrays: Sequence[Values], weight: Weight) -> LowRank | Rows:
    """Return the inverse transform of the coefficients, at the places that the seed draws."""
    count, (d_out, d_in) = len(arrays[0]), weight.shape
    require(count <= d_out * d_in, f"{count:,} coefficients", weight)
    places = drawn(d_out * d_in, count, int(what.settings["seed"]))
    scale = float(what.settings["scale"])
    return harmonic(places // d_in, places % d_in, wide(arrays[0]), (d_out, d_in), scale)


MISS = Method("miss", frozenset({"miss_block"}), locate_miss, change_miss, strength_miss, ALONE,
              "the size of the weight")  # fmt: skip
RANDLORA = Method(
    "randlora", frozenset({"randlora_lambda", "randlora_gamma"}), locate_randlora, change_randlora,
    unknown, needs="the size of the weight", shared=frozenset(_BASES), repeats=True,
)  # fmt: skip
SUPERTUNING = Method(
    "supertuning", frozenset({"supertuning_indices", "supertuning_values"}), locate_supertuning,
    change_supertuning, unknown, needs="the size of the weight",
    whole=frozenset({"supertuning_indices"}),
)  # fmt: skip
FOURIERFT = Method(
    "fourierft", frozenset({"fourierft_spectrum"}), locate_fourier, change_fourier, unknown,
    needs="the size of the weight",
)  # fmt: skip
WAVEFT = Method(
    "waveft", frozenset({"waveft_spectrum"}), locate_wavelets, change_wavelets, unknown,
    needs="the size of the weight",
)  # fmt: skip
