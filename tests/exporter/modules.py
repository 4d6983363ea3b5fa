"""Small modules to export: layers of torch.nn, and functions that networks for pictures call."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth, misc


class Input:
    """Makes an input of a module. If the batch is open, dimension 0 is the batch."""

    def __init__(self, make, shape, open_batch):
        self.make, self.shape, self.open_batch = make, shape, open_batch

    def tensor(self, batch=None):
        """With the table's batch, or another."""
        keep = batch is None or not self.open_batch
        return self.make(self.shape if keep else (batch, *self.shape[1:]))


def floats(*shape, batch=True):
    return Input(torch.randn, shape, batch)


def positive(*shape, batch=True):
    return Input(lambda s: torch.rand(s) + 0.1, shape, batch)


def whole(high, *shape, batch=True):
    """Whole numbers of 0 up to, not including, `high`."""
    return Input(lambda s: torch.randint(0, high, s), shape, batch)


def flags(*shape, batch=True):
    return Input(lambda s: torch.rand(s) < 0.5, shape, batch)


class Function(nn.Module):
    """A function of one to three tensors as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, y=None, z=None):
        return self.function(*(v for v in (x, y, z) if v is not None))


class With(nn.Module):
    """A function of its input and of modules or parameters."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def parameter(*shape):
    return nn.Parameter(torch.zeros(shape))


LINE, PICTURE, VOLUME = floats(2, 4, 9), floats(2, 4, 6, 7), floats(2, 2, 4, 5, 6)
SQUARE, ROWS, TOKENS = floats(2, 4, 8, 8), floats(3, 10), floats(2, 5, 8)

LAYERS = {
    # Convolutions and products.
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), LINE),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1), PICTURE),
    "conv2d_same": (nn.Conv2d(4, 6, (3, 4), padding="same", bias=False), PICTURE),
    "conv2d_depthwise": (nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2), PICTURE),
    "conv2d_reflect": (nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), PICTURE),
    "conv2d_circular": (nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"), PICTURE),
    "conv2d_replicate": (nn.Conv2d(4, 3, 3, padding=(2, 1), padding_mode="replicate"), PICTURE),
    "conv3d": (nn.Conv3d(2, 3, (2, 3, 3), padding=(0, 1, 1)), VOLUME),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1), LINE),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), PICTURE),
    "conv_transpose2d_groups": (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), PICTURE),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 2, 2, stride=2), floats(2, 2, 3, 3, 3)),
    "linear": (nn.Linear(10, 7), ROWS),
    "linear_tokens": (nn.Linear(8, 6, bias=False), TOKENS),
    "bilinear": (nn.Bilinear(4, 5, 3), floats(2, 4), floats(2, 5)),
    "unfold": (nn.Unfold((3, 2), padding=1, stride=2), PICTURE),
    "fold": (nn.Fold((6, 7), (3, 3), padding=1), floats(2, 18, 42)),
    # Pools.
    "max_pool1d": (nn.MaxPool1d(3, 2), LINE),
    "max_pool2d": (nn.MaxPool2d(3, 2, 1), PICTURE),
    "max_pool2d_ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), PICTURE),
    "max_pool2d_dilated": (nn.MaxPool2d(2, 1, dilation=2), PICTURE),
    "max_pool3d": (nn.MaxPool3d(2, 2), VOLUME),
    "avg_pool1d": (nn.AvgPool1d(3, 2, 1), LINE),
    "avg_pool2d": (nn.AvgPool2d(3, 2, 1), PICTURE),
    "avg_pool2d_exclude": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), PICTURE),
    "avg_pool2d_ceil": (nn.AvgPool2d(3, 2, ceil_mode=True), SQUARE),
    "avg_pool3d": (nn.AvgPool3d(2, 2), VOLUME),
    "lp_pool1d": (nn.LPPool1d(2, 3, 2), LINE),
    "lp_pool2d": (nn.LPPool2d(2, 2, 2), PICTURE),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d(3), LINE),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d(1), PICTURE),
    "adaptive_avg_pool2d_even": (nn.AdaptiveAvgPool2d((2, 4)), SQUARE),
    "adaptive_avg_pool2d_uneven": (nn.AdaptiveAvgPool2d((4, 3)), PICTURE),
    "adaptive_avg_pool2d_larger": (nn.AdaptiveAvgPool2d(7), floats(2, 4, 3, 3)),
    "adaptive_avg_pool3d": (nn.AdaptiveAvgPool3d(1), VOLUME),
    "adaptive_max_pool1d": (nn.AdaptiveMaxPool1d(1), LINE),
    "adaptive_max_pool2d": (nn.AdaptiveMaxPool2d(1), PICTURE),
    "adaptive_max_pool2d_even": (nn.AdaptiveMaxPool2d((2, 4)), SQUARE),
    "adaptive_max_pool3d": (nn.AdaptiveMaxPool3d(1), VOLUME),
    "max_unpool2d": (With(lambda m, x: m.unpool(*m.pool(x)), unpool=nn.MaxUnpool2d(2),
                          pool=nn.MaxPool2d(2, return_indices=True)), SQUARE),
    "max_pool2d_indices": (nn.MaxPool2d(2, return_indices=True), SQUARE),
    # Padding.
    "reflection_pad1d": (nn.ReflectionPad1d((2, 1)), LINE),
    "reflection_pad2d": (nn.ReflectionPad2d((1, 2, 3, 0)), PICTURE),
    "reflection_pad3d": (nn.ReflectionPad3d(1), VOLUME),
    "replication_pad1d": (nn.ReplicationPad1d(2), LINE),
    "replication_pad2d": (nn.ReplicationPad2d((1, 2, 0, 3)), PICTURE),
    "replication_pad3d": (nn.ReplicationPad3d(1), VOLUME),
    "zero_pad1d": (nn.ZeroPad1d(2), LINE),
    "zero_pad2d": (nn.ZeroPad2d((1, 0, -1, 2)), PICTURE),
    "constant_pad2d": (nn.ConstantPad2d((2, 1, 0, 1), 0.5), PICTURE),
    "constant_pad3d": (nn.ConstantPad3d(1, -1.5), VOLUME),
    "circular_pad1d": (nn.CircularPad1d(2), LINE),
    "circular_pad2d": (nn.CircularPad2d((1, 2, 2, 0)), PICTURE),
    # Activations.
    "elu": (nn.ELU(0.7), ROWS),
    "celu": (nn.CELU(0.7), ROWS),
    "selu": (nn.SELU(), ROWS),
    "gelu": (nn.GELU(), ROWS),
    "gelu_tanh": (nn.GELU("tanh"), ROWS),
    "glu": (nn.GLU(1), PICTURE),
    "hardshrink": (nn.Hardshrink(0.4), ROWS),
    "hardsigmoid": (nn.Hardsigmoid(), ROWS),
    "hardswish": (nn.Hardswish(), ROWS),
    "hardtanh": (nn.Hardtanh(-0.4, 0.9), ROWS),
    "leaky_relu": (nn.LeakyReLU(0.2), PICTURE),
    "log_sigmoid": (nn.LogSigmoid(), ROWS),
    "log_softmax": (nn.LogSoftmax(1), ROWS),
    "mish": (nn.Mish(), ROWS),
    "prelu": (nn.PReLU(4), PICTURE),
    "prelu_one": (nn.PReLU(), ROWS),
    "relu": (nn.ReLU(inplace=True), PICTURE),
    "relu6": (nn.ReLU6(), ROWS),
    "rrelu": (nn.RReLU(), ROWS),
    "sigmoid": (nn.Sigmoid(), ROWS),
    "silu": (nn.SiLU(), ROWS),
    "softmax": (nn.Softmax(-1), TOKENS),
    "softmax2d": (nn.Softmax2d(), PICTURE),
    "softmin": (nn.Softmin(1), ROWS),
    "softplus": (nn.Softplus(), ROWS),
    "softplus_beta": (nn.Softplus(2, 1.5), ROWS),
    "softshrink": (nn.Softshrink(0.3), ROWS),
    "softsign": (nn.Softsign(), ROWS),
    "tanh": (nn.Tanh(), ROWS),
    "tanhshrink": (nn.Tanhshrink(), ROWS),
    "threshold": (nn.Threshold(0.1, 2.0), ROWS),
    # Normalisation.
    "batch_norm1d": (nn.BatchNorm1d(4), LINE),
    "batch_norm1d_rows": (nn.BatchNorm1d(10), ROWS),
    "batch_norm2d": (nn.BatchNorm2d(4, eps=1e-3), PICTURE),
    "batch_norm2d_plain": (nn.BatchNorm2d(4, affine=False), PICTURE),
    "batch_norm2d_of_batch": (nn.BatchNorm2d(4, track_running_stats=False), PICTURE),
    "batch_norm3d": (nn.BatchNorm3d(2), VOLUME),
    "frozen_batch_norm2d": (misc.FrozenBatchNorm2d(4), PICTURE),
    "sync_batch_norm": (nn.SyncBatchNorm(4), PICTURE),
    "group_norm": (nn.GroupNorm(2, 4), PICTURE),
    "group_norm_one": (nn.GroupNorm(1, 4, affine=False), PICTURE),
    "instance_norm1d": (nn.InstanceNorm1d(4), LINE),
    "instance_norm2d": (nn.InstanceNorm2d(4, affine=True), PICTURE),
    "instance_norm2d_tracked": (nn.InstanceNorm2d(4, track_running_stats=True), PICTURE),
    "instance_norm3d": (nn.InstanceNorm3d(2, affine=True), VOLUME),
    "layer_norm": (nn.LayerNorm(8), TOKENS),
    "layer_norm_two": (nn.LayerNorm((6, 7), elementwise_affine=False), PICTURE),
    "layer_norm_no_bias": (nn.LayerNorm(8, bias=False), TOKENS),
    "rms_norm": (nn.RMSNorm(8), TOKENS),
    "local_response_norm": (nn.LocalResponseNorm(3, 1e-2, 0.7, 1.5), PICTURE),
    # Attention and recurrence.
    "multihead_attention": (With(lambda m, x: m.attend(x, x, x, need_weights=False)[0],
                                 attend=nn.MultiheadAttention(8, 2, batch_first=True)), TOKENS),
    "multihead_attention_weights": (nn.MultiheadAttention(8, 2, batch_first=True),
                                    TOKENS, TOKENS, TOKENS),
    "transformer_encoder_layer": (nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), TOKENS),
    "transformer_encoder_layer_first": (
        nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True, norm_first=True),
        TOKENS),
    "transformer_decoder_layer": (nn.TransformerDecoderLayer(8, 2, 12, batch_first=True),
                                  TOKENS, floats(2, 3, 8)),
    "rnn": (nn.RNN(8, 6, batch_first=True), TOKENS),
    "lstm": (nn.LSTM(8, 6, batch_first=True), TOKENS),
    "gru": (nn.GRU(8, 6, batch_first=True), TOKENS),
    "rnn_cell": (nn.RNNCell(10, 6), ROWS),
    "lstm_cell": (nn.LSTMCell(10, 6), ROWS),
    "gru_cell": (nn.GRUCell(10, 6), ROWS),
    # The rest.
    "identity": (nn.Identity(), ROWS),
    "dropout": (nn.Dropout(0.5), ROWS),
    "dropout2d": (nn.Dropout2d(0.5), PICTURE),
    "alpha_dropout": (nn.AlphaDropout(0.5), ROWS),
    "stochastic_depth": (StochasticDepth(0.5, "row"), PICTURE),
    "embedding": (nn.Embedding(11, 4), whole(11, 2, 5)),
    "embedding_bag": (nn.EmbeddingBag(11, 4, mode="mean"), whole(11, 2, 5)),
    "cosine_similarity": (nn.CosineSimilarity(1), PICTURE, PICTURE),
    "pairwise_distance": (nn.PairwiseDistance(), ROWS, ROWS),
    "pixel_shuffle": (nn.PixelShuffle(2), floats(2, 8, 3, 4)),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), floats(2, 2, 6, 4)),
    "channel_shuffle": (nn.ChannelShuffle(2), PICTURE),
    "flatten": (nn.Flatten(), PICTURE),
    "unflatten": (nn.Unflatten(1, (2, 5)), ROWS),
    "upsample_nearest": (nn.Upsample(scale_factor=2), PICTURE),
    "upsample_bilinear": (nn.Upsample(size=(9, 11), mode="bilinear"), PICTURE),
    "upsample_linear1d": (nn.Upsample(scale_factor=2, mode="linear"), LINE),
    "upsample_trilinear": (nn.Upsample(scale_factor=2, mode="trilinear"), floats(2, 2, 2, 3, 3)),
    "upsampling_nearest2d": (nn.UpsamplingNearest2d(scale_factor=3), floats(2, 3, 3, 4)),
    "upsampling_bilinear2d": (nn.UpsamplingBilinear2d(scale_factor=2), floats(2, 3, 3, 4)),
    "squeeze_excitation": (misc.SqueezeExcitation(4, 2), PICTURE),
    "conv_norm_activation": (misc.Conv2dNormActivation(4, 6, 3, activation_layer=nn.Hardswish),
                             PICTURE),
    "mlp": (misc.MLP(8, [16, 8], activation_layer=nn.GELU), TOKENS),
    "permute_layer": (misc.Permute([0, 2, 3, 1]), PICTURE),
}


def set_channels(x):
    x = x.clone()
    x[:, 1:3] = 0.25
    return x


def set_borders(x):
    x = x.clone()
    x[..., 0, :] = x[..., 1, :] * 2
    x[:, :, :, -1] += 1
    return x


def shift_channels(x):
    """The temporal shift of video networks, as they write it."""
    out = torch.zeros_like(x)
    out[:, :-1, 0] = x[:, 1:, 0]
    out[:, 1:, 1] = x[:, :-1, 1]
    out[:, :, 2:] = x[:, :, 2:]
    return out


def windows(x):
    """Into windows of 4x4, shifted by two, as in Swin."""
    n, c, h, w = x.shape
    x = torch.roll(x, (-2, -2), (2, 3)).view(n, c, h // 4, 4, w // 4, 4)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)


def window_mask(x):
    """Swin's mask of a shifted window, made of the input's shape and added to it."""
    mask = x.new_zeros((8, 8))
    for i, rows in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
        for j, columns in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
            mask[rows, columns] = 3 * i + j
    mask = mask.view(2, 4, 2, 4).permute(0, 2, 1, 3).reshape(4, 16)
    mask = mask.unsqueeze(1) - mask.unsqueeze(2)
    return x + mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0).sum(1).view(8, 8)


def relative_positions(x, size=3):
    """The index of a relative position bias, made and used in the graph."""
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    index = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + size - 1
    index = index[..., 0] * (2 * size - 1) + index[..., 1]
    return x[:, index.view(-1)].view(-1, size * size, size * size)


def grid_of(x):
    """Normalised coordinates beside the picture's channels (CoordConv)."""
    n, _, h, w = x.shape
    y, z = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    return torch.cat([x, torch.stack([y, z]).expand(n, -1, -1, -1)], 1)


def positions(x, width=8):
    """A table of sines and cosines, added to tokens."""
    steps = torch.arange(x.shape[1]).unsqueeze(1) * torch.exp(torch.arange(0, width, 2) * -0.7)
    return x + torch.stack([steps.sin(), steps.cos()], -1).flatten(1)


def attention(m, x):
    """Attention by hand: qkv in one product, heads, softmax."""
    n, length, width = x.shape
    q, k, v = m.qkv(x).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    weights = (q * (width // 2) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
    return m.out((weights @ v).transpose(1, 2).reshape(n, length, width))


def boxes(x):
    """The corners of boxes given by middle and size."""
    middle, size = x.split(2, -1)
    return torch.cat([middle - size / 2, middle + size / 2], -1)


def upsample_as(mode, **options):
    return lambda x: F.interpolate(x, mode=mode, **options)


INDEX = torch.tensor([2, 0, 1, 2])
HEADS = floats(2, 2, 5, 4)

FUNCTIONS = {
    # Arithmetic, compared and selected.
    "add_scaled": (lambda x, y: torch.add(x, y, alpha=2), ROWS, ROWS),
    "sub_scalar": (lambda x: 1 - x, ROWS),
    "rsub_scaled": (lambda x: torch.rsub(x, 3, alpha=2), ROWS),
    "mul_broadcast": (lambda x, y: x * y, PICTURE, floats(2, 4, 1, 1)),
    "div_floor": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), ROWS),
    "div_trunc": (lambda x: torch.div(x, 0.3, rounding_mode="trunc"), ROWS),
    "div_whole": (lambda x: x / 3, whole(9, 2, 5)),
    "floor_divide_whole": (lambda x: x // 3, whole(9, 2, 5)),
    "remainder": (lambda x: torch.remainder(x, 0.7), ROWS),
    "fmod": (lambda x: torch.fmod(x, 0.7), ROWS),
    "pow_scalar": (lambda x: x ** 3, ROWS),
    "pow_tensor": (lambda x, y: x ** y, positive(3, 10), ROWS),
    "scalar_pow": (lambda x: 2 ** x, ROWS),
    "square": (torch.square, ROWS),
    "sqrt": (torch.sqrt, positive(3, 10)),
    "rsqrt": (torch.rsqrt, positive(3, 10)),
    "reciprocal": (torch.reciprocal, positive(3, 10)),
    "exp": (torch.exp, ROWS),
    "expm1": (torch.expm1, ROWS),
    "log": (torch.log, positive(3, 10)),
    "log2": (torch.log2, positive(3, 10)),
    "log10": (torch.log10, positive(3, 10)),
    "log1p": (torch.log1p, positive(3, 10)),
    "sin": (torch.sin, ROWS),
    "cos": (torch.cos, ROWS),
    "tan": (torch.tan, ROWS),
    "atan": (torch.atan, ROWS),
    "atan2": (torch.atan2, ROWS, ROWS),
    "sinh": (torch.sinh, ROWS),
    "erf": (torch.erf, ROWS),
    "abs": (torch.abs, ROWS),
    "neg": (torch.neg, ROWS),
    "sign": (torch.sign, ROWS),
    "floor": (torch.floor, ROWS),
    "ceil": (torch.ceil, ROWS),
    "round": (lambda x: torch.round(x * 3), ROWS),
    "trunc": (lambda x: torch.trunc(x * 3), ROWS),
    "frac": (lambda x: torch.frac(x * 3), ROWS),
    "clamp": (lambda x: x.clamp(-0.5, 0.8), ROWS),
    "clamp_min": (lambda x: x.clamp(min=0.2), ROWS),
    "clamp_max": (lambda x: x.clamp_max(0.2), ROWS),
    "clamp_tensor": (torch.clamp, ROWS, floats(10, batch=False), positive(10, batch=False)),
    "maximum": (torch.maximum, ROWS, ROWS),
    "minimum": (torch.minimum, ROWS, floats(10, batch=False)),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), ROWS, ROWS),
    "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=0.5), ROWS, ROWS, ROWS),
    "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), ROWS, ROWS, positive(3, 10)),
    "where": (torch.where, flags(3, 10), ROWS, ROWS),
    "where_scalar": (lambda x: torch.where(x > 0, x, -0.1), ROWS),
    "masked_fill": (lambda x, y: x.masked_fill(y, -1e4), ROWS, flags(3, 10)),
    "compare": (lambda x, y: ((x > y).float(), (x <= 0).float(), (x != y).float()), ROWS, ROWS),
    "logic": (lambda x, y: (x & y, x | ~y, torch.logical_xor(x, y)), flags(3, 10), flags(3, 10)),
    "isnan": (lambda x: torch.isnan(torch.log(x)), ROWS),
    "isinf": (lambda x: torch.isinf(1 / x.relu()), ROWS),
    "nan_to_num": (lambda x: torch.nan_to_num(torch.log(x), nan=0.5), ROWS),
    "eye": (lambda x: x + torch.eye(10), floats(2, 10, 10)),
    "heaviside": (lambda x: (x > 0).to(x.dtype) * 2, ROWS),
    "to_whole": (lambda x: (x * 3).long(), ROWS),
    "to_float": (lambda x: x.float() / 255, whole(256, 2, 3, 4, 4)),
    "normalise_picture": (lambda x: (x / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))
                          / torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1), positive(2, 3, 4, 4)),
    # Reductions.
    "mean_all": (lambda x: x.mean(), PICTURE),
    "mean_pixels": (lambda x: x.mean((2, 3)), PICTURE),
    "mean_keep": (lambda x: x.mean((-2, -1), keepdim=True), PICTURE),
    "sum_channels": (lambda x: x.sum(1), PICTURE),
    "sum_flags": (lambda x: (x > 0).sum(1), ROWS),
    "prod": (lambda x: x.prod(1), ROWS),
    "max_all": (lambda x: x.max(), ROWS),
    "max_dim": (lambda x: x.max(1), PICTURE),
    "min_dim": (lambda x: x.min(-1, keepdim=True)[0], PICTURE),
    "amax": (lambda x: x.amax((1, 2)), PICTURE),
    "amin": (lambda x: x.amin(-1), PICTURE),
    "argmax": (lambda x: x.argmax(1), PICTURE),
    "argmax_all": (lambda x: x.argmax(), ROWS),
    "argmin": (lambda x: x.argmin(-1, keepdim=True), ROWS),
    "var": (lambda x: x.var(1), ROWS),
    "var_plain": (lambda x: x.var((2, 3), unbiased=False, keepdim=True), PICTURE),
    "std": (lambda x: x.std(-1, keepdim=True), PICTURE),
    "var_mean": (lambda x: torch.var_mean(x, (2, 3), correction=0), PICTURE),
    "norm": (lambda x: x.norm(dim=1), PICTURE),
    "norm_one": (lambda x: torch.linalg.vector_norm(x, 1, -1), ROWS),
    "normalize": (lambda x: F.normalize(x, dim=1), PICTURE),
    "logsumexp": (lambda x: x.logsumexp(1), ROWS),
    "any_all": (lambda x: (x.any(1), x.all(1)), flags(3, 4)),
    "cumsum": (lambda x: x.cumsum(1), ROWS),
    "cumprod": (lambda x: x.cumprod(1), ROWS),
    "topk": (lambda x: x.topk(3), ROWS),
    "topk_smallest": (lambda x: x.topk(2, 1, largest=False), PICTURE),
    "sort": (lambda x: x.sort(-1, descending=True), ROWS),
    "argsort": (lambda x: x.argsort(-1), ROWS),
    "gram": (lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2) / 42, PICTURE),
    # Moved, cut and joined.
    "chunk": (lambda x: x.chunk(2, 1), PICTURE),
    "chunk_uneven": (lambda x: x.chunk(3, -1), ROWS),
    "split": (lambda x: x.split(2, 1), PICTURE),
    "split_sizes": (lambda x: x.split([1, 3], 1), PICTURE),
    "tensor_split": (lambda x: x.tensor_split(3, 1), ROWS),
    "unbind": (lambda x: x.unbind(1), TOKENS),
    "unbind_sum": (lambda x: sum(x.unbind(1)), TOKENS),
    "cat": (lambda x, y: torch.cat([x, y, x], 1), PICTURE, floats(2, 3, 6, 7)),
    "cat_last": (lambda x, y: torch.cat([x, y], -1), ROWS, floats(3, 4)),
    "stack": (lambda x, y: torch.stack([x, y], 1), ROWS, ROWS),
    "stack_last": (lambda x, y: torch.stack([x, y], -1), ROWS, ROWS),
    "permute": (lambda x: x.permute(0, 2, 3, 1), PICTURE),
    "transpose": (lambda x: x.transpose(1, 2).contiguous(), PICTURE),
    "movedim": (lambda x: x.movedim(1, -1), PICTURE),
    "reshape": (lambda x: x.reshape(x.shape[0], -1, 2), PICTURE),
    "reshape_by_shape": (lambda x: x.view(x.size(0), x.size(1), x.size(2) * x.size(3)), PICTURE),
    "flatten_two": (lambda x: x.flatten(2).transpose(1, 2), PICTURE),
    "unflatten_one": (lambda x: x.unflatten(-1, (2, -1)), ROWS),
    "squeeze": (lambda x: x.squeeze(1).squeeze(-1), floats(2, 1, 5, 1)),
    "squeeze_all": (lambda x: x.squeeze(), floats(2, 1, 5, 1)),
    "unsqueeze": (lambda x: x.unsqueeze(1).unsqueeze(-1), ROWS),
    "index_none": (lambda x: x[:, None, :, None], ROWS),
    "expand": (lambda x: x.unsqueeze(1).expand(-1, 4, -1), ROWS),
    "expand_as": (lambda x, y: x.expand_as(y) + y, floats(2, 4, 1, 1), PICTURE),
    "repeat": (lambda x: x.repeat(1, 2, 3), TOKENS),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), ROWS),
    "tile": (lambda x: x.tile((1, 2, 1)), TOKENS),
    "roll": (lambda x: x.roll((2, -1), (2, 3)), PICTURE),
    "flip": (lambda x: x.flip((2, 3)), PICTURE),
    "rot90": (lambda x: x.rot90(1, (2, 3)), PICTURE),
    "slice": (lambda x: x[:, 1:3, ::2, 1:-1], PICTURE),
    "slice_patches": (lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1), SQUARE),
    "select": (lambda x: x[:, 0], TOKENS),
    "select_last": (lambda x: x[:, -1] - x.select(1, 2), TOKENS),
    "narrow": (lambda x: x.narrow(1, 1, 2), PICTURE),
    "index_channels": (lambda x: x[:, INDEX], PICTURE),
    "index_two": (lambda x: x[:, :, INDEX, INDEX.flip(0)], PICTURE),
    "index_apart": (lambda x: x[:, INDEX, :, INDEX + 1], PICTURE),
    "index_rows": (lambda x, y: x[y], floats(6, 5, batch=False), whole(6, 4, batch=False)),
    "index_select": (lambda x: x.index_select(2, INDEX), PICTURE),
    "gather": (lambda x, y: x.gather(1, y), ROWS, whole(10, 3, 4)),
    "take_along_dim": (lambda x, y: x.take_along_dim(y, 1), ROWS, whole(10, 3, 4)),
    "gather_tokens": (lambda x: x.gather(1, x[..., 0].argsort(1)[:, :3, None].expand(-1, -1, 8)),
                      TOKENS),
    "scatter": (lambda x, y: x.scatter(1, y, 0.5), ROWS, whole(10, 3, 4)),
    "scatter_add": (lambda x, y, z: x.scatter_add(1, y, z), ROWS, whole(10, 3, 4), floats(3, 4)),
    "index_add": (lambda x, y: x.index_add(1, torch.tensor([0, 2]), y), PICTURE, floats(2, 2, 6, 7)),
    "one_hot": (lambda x: F.one_hot(x, 5), whole(5, 2, 3)),
    "one_hot_float": (lambda x: F.one_hot(x.argmax(1), 4).permute(0, 3, 1, 2).float(), PICTURE),
    "tril": (lambda x: x.tril(), floats(2, 5, 5)),
    "triu": (lambda x: x.triu(1), floats(2, 5, 6)),
    "causal_mask": (lambda x: x.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")).softmax(-1),
                    floats(2, 5, 5)),
    "as_strided": (lambda x: x.as_strided((3, 4), (2, 3), 1), floats(4, 6, batch=False)),
    "unfold_dim": (lambda x: x.unfold(1, 4, 2), ROWS),
    "diagonal": (lambda x: x.diagonal(0, 1, 2), floats(2, 5, 5)),
    "meshgrid": (lambda x, y: torch.meshgrid(x, y, indexing="ij"),
                 floats(3, batch=False), floats(4, batch=False)),
    "arange": (lambda x: x + torch.arange(x.shape[1]), ROWS),
    "arange_step": (lambda x: x * torch.arange(1, 21, 2, dtype=torch.float32), ROWS),
    "linspace": (lambda x: x * torch.linspace(0, 1, 10), ROWS),
    "full_like": (lambda x: x + torch.full_like(x, 0.3), ROWS),
    "zeros_like": (lambda x: torch.cat([x, torch.zeros_like(x)], 1), ROWS),
    "ones_by_shape": (lambda x: x @ torch.ones(x.shape[-1], 3), ROWS),
    "new_zeros": (lambda x: torch.cat([x.new_zeros(x.shape[0], 2), x], 1), ROWS),
    "set_channels": (set_channels, PICTURE),
    "set_borders": (set_borders, PICTURE),
    "shift_channels": (shift_channels, floats(2, 4, 4, 3, 3)),
    "shift_by_pad": (lambda x: F.pad(x[:, 1:], (0, 0, 0, 0, 0, 1)), PICTURE),
    "set_by_mask": (lambda x: x.clone().masked_fill_(x > 1, 0.5), ROWS),
    "masked_scatter_where": (lambda x, y: torch.where(y.unsqueeze(1), x, x.mean()),
                             PICTURE, flags(2, 6, 7)),
    "windows": (windows, SQUARE),
    "window_mask": (window_mask, SQUARE),
    "relative_positions": (relative_positions, floats(2, 25)),
    "grid_of": (grid_of, PICTURE),
    "positions": (positions, TOKENS),
    "boxes": (boxes, floats(2, 5, 4)),
    "space_to_depth": (lambda x: x.view(-1, 4, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4)
                       .reshape(-1, 16, 4, 4), SQUARE),
    "shuffle_groups": (lambda x: x.view(x.size(0), 2, 2, 6, 7).transpose(1, 2).reshape(x.shape), PICTURE),
    # Products and attention.
    "matmul": (torch.matmul, floats(2, 3, 5), floats(2, 5, 4)),
    "matmul_vector": (lambda x, y: x @ y, ROWS, floats(10, batch=False)),
    "matmul_broadcast": (torch.matmul, floats(2, 2, 3, 5), floats(5, 4, batch=False)),
    "bmm": (torch.bmm, floats(2, 3, 5), floats(2, 5, 4)),
    "baddbmm": (torch.baddbmm, floats(2, 3, 4), floats(2, 3, 5), floats(2, 5, 4)),
    "addmm": (lambda x, y, z: torch.addmm(x, y, z, beta=0.5, alpha=2),
              floats(4, batch=False), ROWS, floats(10, 4, batch=False)),
    "einsum_tokens": (lambda x, y: torch.einsum("bid,bjd->bij", x, y), TOKENS, TOKENS),
    "einsum_pixels": (lambda x, y: torch.einsum("bchw,oc->bohw", x, y), PICTURE,
                      floats(3, 4, batch=False)),
    "cdist": (torch.cdist, TOKENS, TOKENS),
    "outer": (lambda x, y: x.unsqueeze(2) * y.unsqueeze(1), ROWS, ROWS),
    "sdpa": (F.scaled_dot_product_attention, HEADS, HEADS, HEADS),
    "sdpa_causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                    HEADS, HEADS, HEADS),
    "sdpa_mask": (lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m),
                  HEADS, floats(5, 5, batch=False)),
    "sdpa_flags": (lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m),
                   HEADS, Input(lambda s: torch.ones(s).tril().bool(), (5, 5), False)),
    "sdpa_scale": (lambda q, k: F.scaled_dot_product_attention(q, k, k, scale=0.3), HEADS, HEADS),
    # Functions of pictures.
    "interpolate_nearest": (upsample_as("nearest", scale_factor=2), PICTURE),
    "interpolate_nearest_size": (upsample_as("nearest", size=(9, 5)), PICTURE),
    "interpolate_nearest_exact": (upsample_as("nearest-exact", size=(9, 10)), PICTURE),
    "interpolate_linear": (upsample_as("linear", size=14), LINE),
    "interpolate_bilinear": (upsample_as("bilinear", scale_factor=2), PICTURE),
    "interpolate_bilinear_corners": (upsample_as("bilinear", size=(9, 12), align_corners=True), PICTURE),
    "interpolate_bilinear_down": (upsample_as("bilinear", size=(3, 4)), SQUARE),
    "interpolate_bilinear_scale": (upsample_as("bilinear", scale_factor=1.5,
                                               recompute_scale_factor=True), SQUARE),
    "interpolate_antialias": (upsample_as("bilinear", size=(3, 4), antialias=True), SQUARE),
    "interpolate_bicubic": (upsample_as("bicubic", scale_factor=2), PICTURE),
    "interpolate_bicubic_corners": (upsample_as("bicubic", size=(9, 12), align_corners=True), PICTURE),
    "interpolate_trilinear": (upsample_as("trilinear", size=(5, 4, 7)), floats(2, 2, 3, 3, 4)),
    "interpolate_area": (upsample_as("area", size=(2, 4)), SQUARE),
    "interpolate_as": (lambda x, y: F.interpolate(x, y.shape[-2:], mode="bilinear") + y,
                       floats(2, 4, 3, 4), PICTURE),
    "interpolate_positions": (With(
        lambda m, x: x + F.interpolate(m.table, x.shape[-2:], mode="bicubic"),
        table=parameter(1, 4, 3, 3)), PICTURE),
    "pad_constant": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.7), PICTURE),
    "pad_reflect": (lambda x: F.pad(x, (2, 2, 1, 1), mode="reflect"), PICTURE),
    "pad_replicate": (lambda x: F.pad(x, (0, 3, 2, 0), mode="replicate"), PICTURE),
    "pad_circular": (lambda x: F.pad(x, (1, 1, 2, 2), mode="circular"), PICTURE),
    "pad_channels": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), PICTURE),
    "pad_to_multiple": (lambda x: F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4)), PICTURE),
    "crop": (lambda x: F.pad(x, (-1, -1, -2, 0)), PICTURE),
    "grid_sample": (F.grid_sample, PICTURE, Input(lambda s: torch.rand(s) * 2.2 - 1.1, (2, 3, 4, 2), True)),
    "affine_grid": (lambda x: F.affine_grid(x, (2, 3, 4, 5), align_corners=False),
                    floats(2, 2, 3, batch=False)),
    "conv2d_function": (F.conv2d, PICTURE, floats(3, 4, 3, 3, batch=False)),
    "conv2d_by_input": (lambda x, y: F.conv2d(x, y, groups=2), floats(1, 4, 6, 6, batch=False),
                        floats(4, 2, 3, 3, batch=False)),
    "avg_pool_function": (lambda x: F.avg_pool2d(x, x.shape[-2:]), PICTURE),
    "max_pool_by_shape": (lambda x: F.max_pool2d(x, kernel_size=x.size()[2:]), PICTURE),
    "unfold_fold": (lambda x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2), SQUARE),
    "layer_norm_function": (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2), PICTURE),
    "global_response_norm": (lambda x: x * (1 + x.norm(dim=(2, 3), keepdim=True)
                                            / (x.norm(dim=(2, 3), keepdim=True).mean(1, True) + 1e-6)),
                             PICTURE),
    "global_attention": (lambda x: (x * x.flatten(2).softmax(-1).view(x.shape)).sum((2, 3)), PICTURE),
    "gelu_by_hand": (lambda x: 0.5 * x * (1 + torch.erf(x / 2 ** 0.5)), ROWS),
    "swish_by_hand": (lambda x: x * torch.sigmoid(1.702 * x), ROWS),
    "hard_swish_by_hand": (lambda x: x * F.relu6(x + 3) / 6, PICTURE),
    "focus": (lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2],
                                   x[..., 1::2, 1::2]], 1), SQUARE),
    # With parameters.
    "attention": (With(attention, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)), TOKENS),
    "layer_scale": (With(lambda m, x: x * m.scale, scale=parameter(4, 1, 1)), PICTURE),
    "class_token": (With(lambda m, x: torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.table,
                         token=parameter(1, 1, 8), table=parameter(1, 6, 8)), TOKENS),
    "patches": (With(lambda m, x: m.project(x).flatten(2).transpose(1, 2), project=nn.Conv2d(4, 6, 4, 4)),
                SQUARE),
    "standardised_conv": (With(
        lambda m, x: F.conv2d(x, (m.weight - m.weight.mean((1, 2, 3), keepdim=True))
                              / (m.weight.std((1, 2, 3), keepdim=True) + 1e-5), padding=1),
        weight=parameter(5, 4, 3, 3)), PICTURE),
    "shared_conv": (With(lambda m, x: m.conv(m.conv(x).relu()), conv=nn.Conv2d(4, 4, 3, padding=1)), PICTURE),
    "two_heads": (With(lambda m, x: {"class": m.first(x), "box": m.second(x).sigmoid()},
                       first=nn.Linear(10, 3), second=nn.Linear(10, 4)), ROWS),
}


def cases():
    """Every small module by name, with its inputs."""
    table = dict(LAYERS)
    for name, (function, *inputs) in FUNCTIONS.items():
        module = function if isinstance(function, nn.Module) else Function(function)
        table[name] = (module, *inputs)
    return table


def randomise(module):
    """Values that hide nothing, in place of ones, zeros and statistics of nothing."""
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape) * 0.5)
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn(value.shape))
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape) + 0.5)
    return module.eval()
