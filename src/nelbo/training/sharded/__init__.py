"""Weights, gradients, moments and averages shared out among the processes (ZeRO; torch's FSDP2).

A network in training takes 20 bytes a parameter on every device of ``trainer=ddp``: the weight, its gradient,
Adam's two moments and the average. Here each device keeps its part of them, and gathers the weights of one
block at a time for as long as it computes with them.
"""
