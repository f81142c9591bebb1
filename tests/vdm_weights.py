"""The parameters of the small networks of google-research/vdm in tests/golden, with our names."""

import torch


def weights_of_vdm(golden):
    """The parameters of google-research/vdm, with the names and the axes of ours."""
    start = "param/score_model/"
    theirs = {k.removeprefix(start): v for k, v in golden.items() if k.startswith(start)}
    ours = {}

    def conv(name):
        return theirs[f"{name}/kernel"].permute(3, 2, 0, 1)

    def dense(name):
        return theirs[f"{name}/kernel"].T

    def point(name):
        return dense(name)[:, :, None, None]

    def add(name, weight, bias):
        ours[f"{name}.weight"], ours[f"{name}.bias"] = weight, bias

    def norm(name, their):
        add(name, theirs[f"{their}/scale"], theirs[f"{their}/bias"])

    def block(name, their):
        norm(f"{name}.norm1", f"{their}/GroupNorm_0")
        add(f"{name}.conv1", conv(f"{their}/conv1"), theirs[f"{their}/conv1/bias"])
        add(f"{name}.embedding", dense(f"{their}/cond_proj"), torch.zeros(32))  # it has no bias
        norm(f"{name}.norm2", f"{their}/GroupNorm_1")
        add(f"{name}.conv2", conv(f"{their}/conv2"), theirs[f"{their}/conv2/bias"])
        if f"{their}/nin_shortcut/kernel" in theirs:
            add(f"{name}.skip", point(f"{their}/nin_shortcut"), theirs[f"{their}/nin_shortcut/bias"])

    # ours are [cos, sin]; the last feature is the conditioning, which is 0 there
    sines, cosines, _ = theirs["dense0/kernel"].split([16, 16, 1])
    add("embedding.linear1", torch.cat([cosines, sines]).T, theirs["dense0/bias"])
    add("embedding.linear2", dense("dense1"), theirs["dense1/bias"])
    add("stem", conv("conv_in"), theirs["conv_in/bias"])
    for i in range(2):
        block(f"down.{i}.residual", f"down.block_{i}")
    for i in range(2):
        block(f"middle.{i}.residual", f"mid.block_{i + 1}")
    for i in range(3):
        block(f"up.{i}.residual", f"up.block_{i}")
    norm("middle.0.attention.norm", "mid.attn_1/GroupNorm_0")
    query, key, value = ("mid.attn_1/q", "mid.attn_1/k", "mid.attn_1/v")
    add(
        "middle.0.attention.qkv",
        torch.cat([point(name) for name in (query, key, value)]),
        torch.cat([theirs[f"{name}/bias"] for name in (query, key, value)]),
    )
    add("middle.0.attention.out", point("mid.attn_1/proj_out"), theirs["mid.attn_1/proj_out/bias"])
    norm("out.0", "GroupNorm_0")
    add("out.2", conv("conv_out"), theirs["conv_out/bias"])
    return ours
