"""What `benchmarks.results_video` scores, and what it compares with."""

import numpy as np
from benchmarks.results_video_clips import shuffled, spread, still

from cineray.training.reconstructions import Reconstruction


def clip(subject, stimulus, value):
    return Reconstruction(0, subject, "test-00", stimulus, np.full((2, 4, 4, 3), value, np.uint8), 4.0, 0)


def test_long_files_are_thinned_evenly_and_short_ones_kept():
    long, short = [f"hall/walk-{n:05d}" for n in range(40, 63)], ["signs/stop-00004"]
    kept = spread([*long, *long, *short], 12)
    assert kept == {*long[::2], *short}  # 23 clips: every second one


def test_shuffled_clips_have_a_video_of_another_file_and_the_same_person():
    files = ("a", "a", "a", "b", "c-d")
    clips = [
        clip(subject, f"{file}-{n:05d}", 50 * who + 10 * files.index(file))
        for who, subject in enumerate(("sub-01", "sub-02"))
        for n, file in enumerate(files)
    ]
    videos = {
        subject: {c.stimulus_id.rpartition("-")[0]: c.video[0, 0, 0, 0] for c in clips if c.subject == subject}
        for subject in ("sub-01", "sub-02")
    }
    for seed in range(5):
        found = list(shuffled(clips, seed))
        assert [(c.subject, c.stimulus_id) for c in found] == [(c.subject, c.stimulus_id) for c in clips]
        for c in found:
            others = dict(videos[c.subject])
            own = others.pop(c.stimulus_id.rpartition("-")[0])
            assert c.video[0, 0, 0, 0] != own
            assert c.video[0, 0, 0, 0] in others.values()


def test_a_still_video_is_the_picture_in_every_frame():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    (found,) = still(picture, iter([clip("sub-01", "a-00000", 7)]))
    assert found.stimulus_id == "a-00000"
    np.testing.assert_array_equal(found.video, [picture, picture])
