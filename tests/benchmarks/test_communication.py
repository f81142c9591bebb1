"""The model of communication, against sums done by hand."""

import pytest

from benchmarks.communication import BUCKET_BYTES, all_reduce, num_parameters, sharded_bytes


def test_a_ring_of_two_sends_the_gradients_once():
    c = all_reduce(1_000_000, 2, gb_per_second=1.0, step_seconds=1.0)
    assert c.bytes_sent == 4_000_000
    assert c.seconds == pytest.approx(4e-3)


def test_many_processes_send_them_twice():
    assert all_reduce(1_000_000, 10**6, 1.0, 1.0).bytes_sent == pytest.approx(8_000_000, rel=1e-5)


def test_what_the_backward_pass_hides():
    P = 10 * BUCKET_BYTES // 4
    short = all_reduce(P, 8, 1000.0, 1.0)
    assert short.exposed == pytest.approx(short.seconds / 10)  # the last of ten buckets
    long = all_reduce(P, 8, 0.01, 1.0)
    assert long.exposed == pytest.approx(long.seconds - 2 / 3)
    assert long.share(1.0) == pytest.approx(long.exposed / (1 + long.exposed))


def test_sharding_sends_half_as_much_again():
    assert sharded_bytes(1000, 8) == pytest.approx(1.5 * all_reduce(1000, 8, 1.0, 1.0).bytes_sent)


def test_the_parameters_are_those_of_the_networks():
    assert num_parameters("unet_tiny") == 755_009
    assert num_parameters("unet_ddpm") == 35_746_307
    assert num_parameters("unet_iddpm") == 52_546_438
