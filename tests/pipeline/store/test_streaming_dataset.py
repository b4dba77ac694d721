from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from store_rows import new_store, outcome_of, row
from torch.utils.data import DataLoader

from arabesque.pipeline.store.aligned_dataset import AlignedDataset, collate_padded
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.streaming_dataset import StreamingDataset
from arabesque.pipeline.store.writer import StoreWriter

NAMES = [f"v{number:03d}" for number in range(101)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> AlignedDataset:
    """101 videos of one to five segments in several shards; every seventh has no sound."""
    root = new_store(tmp_path_factory.mktemp("streamed"))
    for first in range(0, len(NAMES), 30):
        with StoreWriter(root) as writer:
            for number, name in list(enumerate(NAMES))[first : first + 30]:
                made = row(name, segments=1 + number % 5)
                sound = row(name, "ast", segments=1 + number % 5)
                writer.add(made)
                writer.add_outcome(outcome_of(made))
                if number % 7:
                    writer.add(sound)
                writer.add_outcome(outcome_of(sound, None if number % 7 else "empty", reason="no audio track"))
    return AlignedDataset(FeatureStore(root), ["vst", "ast"], labels={name: float(name[1:]) for name in NAMES})


def ids(streamed: StreamingDataset) -> list[str]:
    return [sample["video_id"] for sample in streamed]


def test_a_pass_gives_every_sample_once_and_unchanged(samples: AlignedDataset):
    alone = {sample["video_id"]: sample for sample in (samples[place] for place in range(len(samples)))}
    streamed = list(StreamingDataset(samples, shuffle_buffer=20))
    assert sorted(sample["video_id"] for sample in streamed) == NAMES
    for sample in streamed:
        other = alone[sample["video_id"]]
        assert sample.keys() == other.keys()
        assert sample["label"] == other["label"]
        for name in ("vst", "ast", "start_s", "end_s"):
            assert torch.equal(sample[name], other[name])
        assert torch.equal(sample["masks"]["ast"], other["masks"]["ast"])


def test_the_order_follows_from_seed_and_epoch(samples: AlignedDataset):
    streamed, same, other = (StreamingDataset(samples, seed=seed, shuffle_buffer=40) for seed in (1, 1, 2))
    first = ids(streamed)
    assert first == ids(same) == ids(streamed)
    assert first != ids(other)
    streamed.epoch = 1
    assert ids(streamed) != first


def test_videos_of_all_shards_come_early(samples: AlignedDataset):
    early = ids(StreamingDataset(samples, shuffle_buffer=60))[:30]
    assert len({int(name[1:]) // 20 for name in early}) >= 4
    assert ids(StreamingDataset(samples, shuffle=False)) == samples.store.stored_order("vst")


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_divide_the_videos(samples: AlignedDataset, workers: int):
    ranks = [StreamingDataset(samples, rank=rank, world_size=3) for rank in range(3)]
    loaders = [DataLoader(rank, batch_size=8, num_workers=workers, collate_fn=collate_padded) for rank in ranks]
    found = [[name for batch in loader for name in batch["video_id"]] for loader in loaders]
    assert [len(names) for names in found] == [len(rank) for rank in ranks] == [33, 34, 34]
    assert sorted(chain.from_iterable(found)) == NAMES


def test_even_ranks_give_equally_many_and_leave_out_others_each_epoch(samples: AlignedDataset):
    ranks = [StreamingDataset(samples, rank=rank, world_size=4, drop_last=True) for rank in range(4)]
    left_out = set()
    for epoch in range(6):
        for rank in ranks:
            rank.epoch = epoch
        given = [ids(rank) for rank in ranks]
        assert [len(names) for names in given] == [25] * 4
        assert len(set(chain.from_iterable(given))) == 100
        left_out |= set(NAMES) - set(chain.from_iterable(given))
    assert len(left_out) > 1


def test_the_buffer_stays_within_its_size(samples: AlignedDataset, monkeypatch: pytest.MonkeyPatch):
    read = 0
    read_together = AlignedDataset.read_together

    def counting(self: AlignedDataset, video_ids: list[str]):
        nonlocal read
        read += len(video_ids)
        return read_together(self, video_ids)

    monkeypatch.setattr(AlignedDataset, "read_together", counting)
    most = 0
    for given, _ in enumerate(StreamingDataset(samples, shuffle_buffer=10), start=1):
        most = max(most, read - given)
    assert read == len(NAMES)
    assert most <= 10 + 16


def test_an_invalid_rank_is_refused(samples: AlignedDataset):
    with pytest.raises(ValueError, match="rank 2 is not between 0 and 1"):
        StreamingDataset(samples, rank=2, world_size=2)


def test_a_pass_continues_when_the_store_is_merged(tmp_path: Path):
    from arabesque.pipeline.store.maintenance.compaction import compact

    root = new_store(tmp_path)
    for name in NAMES[:40]:
        with StoreWriter(root) as writer:
            writer.add(row(name))
            writer.add_outcome(outcome_of(row(name)))
    reading = iter(StreamingDataset(AlignedDataset(FeatureStore(root), ["vst"]), shuffle_buffer=1))
    found = [next(reading)["video_id"]]
    with StoreWriter(root) as writer:
        pass
    compact(root, writer.writer_id)
    found += [sample["video_id"] for sample in reading]
    assert sorted(found) == NAMES[:40]
