"""``trainer=fsdp``: sharded weights, gradients, optimizer states and averages (ZeRO; FSDP2 of torch).

With ``trainer=ddp`` every device holds 20 bytes per parameter: the weight, its gradient, Adam's two moments
and the average. Here each device holds its shard of them and gathers the weights of one block at a time.
"""
