import pytest
import torch
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from arabesque.extractors.window_attention import WindowAttention, windows_of, with_window_attention

WINDOW = (4, 3, 3)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 1, 1)])
@pytest.mark.parametrize("size", [(8, 6, 9), (7, 6, 8), (4, 6, 6), (3, 7, 7), (2, 2, 2)], ids=str)
def test_equal_to_torchvisions(size: tuple[int, int, int], shift: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    theirs = ShiftedWindowAttention3d(12, list(WINDOW), list(shift), num_heads=3).eval()
    torch.nn.init.normal_(theirs.relative_position_bias_table)
    tokens = torch.randn(2, *size, 12)
    with torch.inference_mode():
        expected = theirs(tokens)
        found = with_window_attention(theirs)(tokens)
    assert type(theirs) is WindowAttention
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_windows_are_of_eight_kinds_by_the_axes_whose_end_they_hold() -> None:
    order, places, kinds = windows_of((12, 9, 9), WINDOW, (2, 1, 1), torch.device("cpu"))
    assert torch.equal(order[places], torch.arange(12 * 9 * 9))
    assert sorted(count for count, _ in kinds) == [1, 2, 2, 2, 4, 4, 4, 8]
    assert [count for count, apart in kinds if apart is None] == [8]


def test_a_shifted_block_compiles_into_one_graph() -> None:
    """Its tables are constants of the graph. A break in each of Video Swin's 24 blocks would prevent a gain."""
    torch.manual_seed(0)
    block = with_window_attention(ShiftedWindowAttention3d(12, list(WINDOW), [2, 1, 1], num_heads=3).eval())
    tokens = torch.randn(2, 8, 6, 9, 12)
    with torch.no_grad():
        compiled = torch.compile(block, backend="eager", fullgraph=True)(tokens)
        torch.testing.assert_close(compiled, block(tokens), rtol=1e-5, atol=1e-6)
