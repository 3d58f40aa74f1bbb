"""Any sequence of writes, crashes, damage, repairs and reads agrees with a model in memory."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tangrams.store import CorruptStoreError, FeatureStore, IncompleteStoreError, SideArray, StoreSpec, StoreWriter

N, R, D, BLOCK = 10, 2, 5, 3
BLOCKS = 4
SPEC = StoreSpec(N, R, D, "float32", BLOCK, targets=SideArray("int64", ()), strip=2)
FEATURES = torch.randn(N * R, D, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(N) * 7


class Crash(Exception):
    pass


def make_machine(tiny):
    class StoreMachine(RuleBasedStateMachine):
        """What is on disk against the sets of finished and of damaged blocks."""

        @initialize()
        def start(self):
            self.folder = tempfile.TemporaryDirectory()
            self.path = Path(self.folder.name) / "f.zarr"
            self.writer = None
            self.exists = False
            self.finished: set[int] = set()
            self.damaged: set[int] = set()

        def teardown(self):
            if self.writer is not None:
                self.writer.close()
            self.folder.cleanup()

        @precondition(lambda self: self.writer is None)
        @rule(verify=st.booleans())
        def open_writer(self, verify):
            self.writer = StoreWriter(self.path, SPEC, {"map": "m"})
            self.exists = True
            if verify:
                assert set(self.writer.drop_damaged_blocks()) == self.damaged
                self.finished -= self.damaged
                self.damaged.clear()
            assert set(self.writer.missing_blocks()) == set(range(BLOCKS)) - self.finished

        def block(self, number):
            samples = SPEC.samples_of(number)
            rows = slice(samples.start * R, samples.stop * R)
            return number, FEATURES[rows], TARGETS[samples.start : samples.stop]

        @precondition(lambda self: self.writer is not None)
        @rule(number=st.integers(0, BLOCKS - 1))
        def write(self, number):
            number, features, targets = self.block(number)
            self.writer.write_block(number, features, targets=targets)
            self.finished.add(number)
            self.damaged.discard(number)

        @precondition(lambda self: self.writer is not None)
        @rule(number=st.integers(0, BLOCKS - 1), call=st.integers(1, 60), torn=st.booleans())
        def crash_while_writing(self, number, call, torn):
            def act(count, name, real, args, kwargs):
                if count == call:
                    if torn and name == "write":
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    raise Crash
                return real(*args, **kwargs)

            number, features, targets = self.block(number)
            try:
                with tiny.interfering(act):
                    self.writer.write_block(number, features, targets=targets)
                self.finished.add(number)
            except Exception:
                vouched = number in FeatureStore.open(self.path)._manifest.entries
                assert vouched >= (number in self.finished)
                if vouched:
                    self.finished.add(number)
            if all(self.whole(name) for name in self.files(number)):
                self.damaged.discard(number)
            self.close_writer()

        def files(self, number):
            return [key for _, _, key in SPEC.keys(number)]

        def whole(self, name):
            return (self.path / name).exists() and (self.path / name).read_bytes() == WHOLE[name]

        @precondition(lambda self: self.writer is not None)
        @rule()
        def close_writer(self):
            self.writer.close()
            self.writer = None

        @precondition(lambda self: self.writer is not None)
        @rule()
        def finish(self):
            if len(self.finished) < BLOCKS:
                with pytest.raises(IncompleteStoreError):
                    self.writer.finish()
            else:
                self.writer.finish()
                if not self.damaged:
                    self.close_writer()
                    assert tiny.contents(self.path) == WHOLE

        @precondition(lambda self: self.finished)
        @rule(draw=st.data())
        def damage(self, draw):
            number = draw.draw(st.sampled_from(sorted(self.finished)))
            name = draw.draw(st.sampled_from(self.files(number)))
            if not self.whole(name):
                return
            data = WHOLE[name]
            how = draw.draw(st.sampled_from(["flip", "cut", "lose"]))
            if how == "lose":
                (self.path / name).unlink()
            elif how == "cut":
                (self.path / name).write_bytes(data[:-1])
            else:
                (self.path / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            self.damaged.add(number)

        @invariant()
        def reading_agrees(self):
            if not getattr(self, "exists", False):
                return
            store = FeatureStore.open(self.path)
            assert store.complete == (len(self.finished) == BLOCKS)
            if not store.complete:
                with pytest.raises(IncompleteStoreError):
                    store.matrix()
                return
            if self.damaged:
                with pytest.raises(CorruptStoreError) as caught:
                    store.verify()
                assert set(caught.value.blocks) == self.damaged
                for number in self.damaged:
                    features, targets = True, True
                    rows = torch.arange(number * BLOCK * R, number * BLOCK * R + 1)
                    try:
                        features = torch.equal(store.matrix()[rows].to_dense(), FEATURES[rows])
                        targets = torch.equal(store.targets, TARGETS)
                    except CorruptStoreError:
                        pass
                    assert features
                    assert targets
                return
            store.verify()
            assert torch.equal(store.matrix().to_dense(), FEATURES)
            assert torch.equal(store.matrix()[3:9, 1:].to_dense(), FEATURES[3:9, 1:])
            assert torch.equal(store.targets, TARGETS)

    return StoreMachine


WHOLE: dict[str, bytes] = {}


def test_any_sequence_of_operations_agrees_with_a_model_in_memory(tiny, tmp_path):
    with StoreWriter(tmp_path / "whole.zarr", SPEC, {"map": "m"}) as writer:
        for block in range(BLOCKS):
            samples = SPEC.samples_of(block)
            rows = slice(samples.start * R, samples.stop * R)
            writer.write_block(block, FEATURES[rows], targets=TARGETS[samples.start : samples.stop])
        writer.finish()
    WHOLE.clear()
    WHOLE.update(tiny.contents(tmp_path / "whole.zarr"))
    machine = make_machine(tiny)

    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
