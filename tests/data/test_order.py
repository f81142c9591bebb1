import pytest
import torch

from nelbo.data.order import BlockShuffledOrder, SequentialOrder, ShuffledOrder


def test_order_is_a_function_of_seed_and_epoch():
    def epoch(seed, number):
        return torch.stack(ShuffledOrder(20, 4, seed).batches(number))

    assert torch.equal(epoch(0, 3), epoch(0, 3))
    assert not torch.equal(epoch(0, 3), epoch(0, 4))
    assert not torch.equal(epoch(0, 3), epoch(1, 3))
    assert epoch(0, 3).flatten().sort().values.tolist() == list(range(20))


@pytest.mark.parametrize("world_size", [2, 4])
def test_batches_of_all_ranks_are_the_batch_of_one_process(world_size):
    alone = ShuffledOrder(30, 8, seed=1)
    ranks = [ShuffledOrder(30, 8, 1, rank, world_size) for rank in range(world_size)]
    assert all(len(rank) == len(alone) == 3 for rank in ranks)
    pieces = zip(*(rank.batches(5) for rank in ranks), strict=True)
    for piece, batch in zip(pieces, alone.batches(5), strict=True):
        assert torch.equal(torch.cat(piece), batch)


@pytest.mark.parametrize(("n", "world_size"), [(0, 1), (1, 2), (10, 1), (10, 2), (13, 4), (16, 4)])
def test_evaluation_sees_every_example_once(n, world_size):
    orders = [SequentialOrder(n, 4, rank, world_size) for rank in range(world_size)]
    batches = [batch for order in orders for batch in order.batches(0)]
    assert sum(len(order) for order in orders) == len(batches)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(n))
    assert all(0 < len(batch) <= 4 // world_size for batch in batches)


def test_a_batch_that_is_not_divisible_by_the_processes_raises():
    with pytest.raises(ValueError, match=r"multiple of the number of processes \(4\), got 6"):
        ShuffledOrder(100, 6, seed=0, rank=0, world_size=4)


def test_a_batch_larger_than_the_training_set_raises():
    with pytest.raises(ValueError, match="training set of 10 examples: choose at most 10"):
        ShuffledOrder(10, 11, seed=0)


def test_blocks_are_permuted_and_a_batch_needs_few_of_them():
    sizes = [7, 1, 30, 12, 50, 20] * 10
    n, block = sum(sizes), torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = BlockShuffledOrder(n, 20, 0, 0, 1, sizes, buffer=60)
    first, second = order.permutation(0), order.permutation(1)
    assert torch.equal(first.sort().values, torch.arange(n))
    assert torch.equal(first, order.permutation(0))
    assert not torch.equal(first, second)
    for part in first.split(60):
        assert not torch.equal(part, part.sort().values)
        # contiguous in the file: whole blocks, except the first and the last
        whole = [b for b in block[part].unique().tolist() if (block[part] == b).sum() == sizes[b]]
        assert len(whole) >= len(block[part].unique()) - 2
