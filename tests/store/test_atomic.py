"""Writing in the place of another file."""

import os

import pytest

from tangrams.store import replacing


def test_a_file_is_made_and_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with replacing(path) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
            assert partial.suffix == path.suffix
        assert path.read_text() == text
        assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_half_of_the_new(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_off():
        with replacing(path) as partial:
            partial.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_ends_within_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    child = os.fork()
    if not child:
        with replacing(path) as partial:
            partial.write_text("ne")
            os._exit(1)
    os.waitpid(child, 0)
    assert path.read_text() == "old"


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("old")
    link.symlink_to(path)
    with replacing(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"
