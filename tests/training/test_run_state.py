"""A step's result must not depend on how threads happen to run."""

import torch

from reference.training.run_state import repeatable

CPU = torch.device("cpu")


def test_two_threads_find_the_same_gradient_of_shared_values_every_time() -> None:
    """TinyViT's attention biases are shared: 196 x 196 pixel pairs read 196 of them. Here a million read eight.

    A race shows only while two cores are free: then ten runs had four to eight different results.
    """
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(1, 8, requires_grad=True)
    readers = torch.randint(0, 8, (1_000_000,), generator=generator)
    gradient = torch.randn(1, 1_000_000, generator=generator)
    torch.set_num_threads(2)
    found: set[bytes] = set()
    for _ in range(10):
        values.grad = None
        with repeatable(CPU):
            values[:, readers].backward(gradient)
        assert values.grad is not None
        found.add(values.grad.numpy().tobytes())
    assert len(found) == 1


def test_torch_is_left_as_it_was() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(CPU):
        assert torch.are_deterministic_algorithms_enabled()
    with repeatable(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    with repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
