"""What becomes a batch, in which order, and what happens to those that cannot be computed."""

import threading
import time

import numpy as np
import pytest

from berg.core.exceptions import ServerBusyError, StimulusError
from berg.server.batching import Batches, Computed, Work
from berg.server.turns import Turns


class Model:
    """As much of a model as the queue looks at."""

    batch_size = 8

    def __init__(self, name="a"):
        self.name = name


class Computing:
    """Computes when it is let, and notes the batches."""

    def __init__(self):
        self.batches, self.may, self.begun = [], threading.Event(), threading.Event()

    def __call__(self, batch):
        self.batches.append([(work.model.name, work.client, int(work.stimuli.ravel()[0])) for work in batch])
        self.begun.set()
        self.may.wait(10)
        if any((work.stimuli == 13).any() for work in batch):
            raise StimulusError("13 is no stimulus.")
        if any((work.stimuli == 14).any() for work in batch):
            raise RuntimeError("a bug")
        return [Computed([work.stimuli * 2.0], [], {}) for work in batch]


@pytest.fixture
def queue():
    computing = Computing()
    batches = Batches(most_waiting=12, most_of_one=10, compute=computing)
    yield batches, computing
    computing.may.set()
    batches.close()


MODEL = Model()


def work(value, client="me", model=MODEL, n=1, shape=(3,)):
    return Work(model, np.full((n, *shape), value), client)


def waiting_behind(queue, works):
    """The works, put in while another one is computed; then all of them are let go."""
    batches, computing = queue
    first = batches.put(work(0))
    assert computing.begun.wait(5)
    futures = [batches.put(each) for each in works]
    computing.may.set()
    first.result(5)
    return futures


def test_what_waits_is_one_batch_and_each_gets_its_own(queue):
    futures = waiting_behind(queue, [work(value, client=f"client {value}") for value in range(1, 6)])
    assert [future.result(5).outputs[0].tolist() for future in futures] == [
        [[2.0 * value] * 3] for value in range(1, 6)
    ]
    assert [len(batch) for batch in queue[1].batches] == [1, 5]


def test_a_single_one_does_not_wait_for_others(queue):
    batches, computing = queue
    computing.may.set()
    began = time.perf_counter()
    for value in range(100, 120):
        batches.put(work(value)).result(5)
    assert time.perf_counter() - began < 0.5
    assert len(computing.batches) == 20


def test_stimuli_of_another_shape_are_another_batch(queue):
    waiting_behind(queue, [work(1), work(2, shape=(4,)), work(3)])[-1].result(5)
    time.sleep(0.05)
    assert [[value for *_, value in batch] for batch in queue[1].batches] == [[0], [1, 3], [2]]


def test_a_batch_is_no_larger_than_the_model_takes(queue):
    futures = waiting_behind(queue, [work(value, client=str(value), n=3) for value in range(1, 5)])
    for future in futures:
        future.result(5)
    assert [len(batch) for batch in queue[1].batches] == [1, 2, 2]


def test_models_take_turns_and_so_do_clients(queue):
    flood = [work(value, "greedy", n=4) for value in range(1, 7)]
    other = Model("b")
    futures = waiting_behind(queue, [*flood, work(50, "modest", n=4), work(60, "patient", other, n=4)])
    for future in futures:
        future.result(5)
    after = queue[1].batches[1:]
    assert ("a", "modest", 50) in after[0]
    assert after[1] == [("b", "patient", 60)]


def test_a_request_that_is_taken_back_is_not_computed(queue):
    batches, computing = queue
    first = batches.put(work(0))
    assert computing.begun.wait(5)
    gone, kept = batches.put(work(1)), batches.put(work(2))
    assert gone.cancel()
    assert batches.n_waiting() == 1
    computing.may.set()
    first.result(5)
    assert kept.result(5).outputs[0].tolist() == [[4.0] * 3]
    assert computing.batches[1:] == [[("a", "me", 2)]]


def test_more_than_fits_is_refused(queue):
    batches, computing = queue
    first = batches.put(work(0))
    assert computing.begun.wait(5)
    waiting = [batches.put(work(value)) for value in range(10)]
    with pytest.raises(ServerBusyError, match="10 requests wait already, 10 of them yours"):
        batches.put(work(1))
    waiting += [batches.put(work(value, "another")) for value in range(2)]
    with pytest.raises(ServerBusyError, match="12 requests wait already, 0 of them yours"):
        batches.put(work(1, "a third"))
    computing.may.set()
    for future in [first, *waiting]:
        future.result(5)


@pytest.mark.parametrize(("bad", "kind"), [(13, StimulusError), (14, RuntimeError)])
def test_one_that_cannot_be_computed_takes_no_other_with_it(queue, bad, kind):
    futures = waiting_behind(queue, [work(1, "x"), work(bad, "y"), work(2, "z")])
    assert futures[0].result(5).outputs[0].tolist() == [[2.0] * 3]
    assert futures[2].result(5).outputs[0].tolist() == [[4.0] * 3]
    with pytest.raises(kind):
        futures[1].result(5)


def test_what_waits_when_the_server_ends_is_told():
    computing = Computing()
    batches = Batches(compute=computing)
    first = batches.put(work(0))
    assert computing.begun.wait(5)
    waiting = batches.put(work(1))
    closing = threading.Thread(target=batches.close)
    closing.start()
    with pytest.raises(ServerBusyError, match="is being stopped"):
        waiting.result(5)
    computing.may.set()
    closing.join(5)
    assert first.result(5).outputs
    with pytest.raises(ServerBusyError, match="is being stopped"):
        batches.put(work(2))


def test_turns_are_given_in_the_order_in_which_they_are_asked_for():
    turns, order, threads = Turns(), [], []
    with turns:
        for number in range(5):
            threads.append(threading.Thread(target=lambda number=number: _take(turns, order, number)))
            threads[-1].start()
            time.sleep(0.01)
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4]


def _take(turns, order, number):
    with turns:
        order.append(number)
