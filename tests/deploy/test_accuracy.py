"""What a low accuracy looks like: another order of the classes, other pixels, or nothing of the kind."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import binomtest

from oodream.deploy.accuracy import (
    NORMALISATIONS,
    best_order,
    exchangeable,
    measure_accuracy,
    other_normalisations,
)


def answers(y_N: torch.Tensor, classes: int, right: float, seed: int = 0) -> torch.Tensor:
    """Logits (N, C) whose largest is the label's in the share `right` of the rows."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.rand(len(y_N), classes, generator=g)
    hit = torch.rand(len(y_N), generator=g) < right
    logits[hit, y_N[hit]] += 1
    return logits


def labels(n: int, classes: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (3, 2, 0, 1)])
def test_the_order_that_fits_is_the_best_of_all(order):
    """Against a try of all orders of four classes."""
    y = labels(80, 4)
    logits = answers(torch.tensor(order)[y], 4, 0.6)
    guess = logits.argmax(1)
    best = max(itertools.permutations(range(4)), key=lambda p: int((guess == torch.tensor(p)[y]).sum()))
    assert best_order(logits, y) == best == order


def test_another_order_is_named_where_it_is_better_and_only_there():
    y, other = labels(300, 5), labels(300, 5, seed=2)
    order = torch.tensor([1, 2, 3, 4, 0])
    accuracy = measure_accuracy((answers(order[y], 5, 0.8), y), answers(order[other], 5, 0.8, 3), other)
    assert accuracy.order == tuple(order.tolist())
    assert accuracy.at_chance
    assert accuracy.reordered > 0.7
    accuracy = measure_accuracy((answers(y, 5, 0.8), y), answers(other, 5, 0.8, 3), other)
    assert accuracy.order == ()
    assert not accuracy.at_chance
    low, high = accuracy.interval
    assert low < accuracy.value < high


def test_an_order_that_fits_by_luck_is_none():
    """Of few images of many classes some order always fits; it is tried on others."""
    y, other = labels(30, 20), labels(200, 20, seed=2)
    first = answers(y, 20, 0.0)
    assert (first.argmax(1) == torch.tensor(best_order(first, y))[y]).double().mean() > 0.2
    accuracy = measure_accuracy((first, y), answers(other, 20, 0.0, 3), other)
    assert accuracy.order == ()
    assert accuracy.at_chance


def test_two_classes_that_are_swapped_among_many():
    y, other = labels(600, 10), labels(600, 10, seed=2)
    order = torch.tensor([1, 0, *range(2, 10)])
    accuracy = measure_accuracy((answers(order[y], 10, 0.9), y), answers(order[other], 10, 0.9, 3), other)
    assert not accuracy.at_chance
    assert accuracy.order == tuple(order.tolist())


def test_the_likely_order_comes_before_what_a_few_confused_answers_suggest():
    """Two classes are confused, so that a search takes them for swapped, whatever order is given."""
    y, other = labels(240, 6), labels(240, 6, seed=2)
    first, second = answers(y, 6, 0.5), answers(other, 6, 0.5, 3)
    for logits, own in ((first, y), (second, other)):
        confused = (own >= 4) & (torch.rand(len(own), generator=torch.Generator().manual_seed(5)) < 0.35)
        logits[confused, 9 - own[confused]] += 9
    reverse = list(range(5, -1, -1))
    found, tried = (first[:, reverse], y), second[:, reverse]
    sought = measure_accuracy(found, tried, other)
    assert {4, 5} <= {*sought.unsure}
    assert not {0, 1, 2, 3} & {*sought.unsure}
    likely = measure_accuracy(found, tried, other, [tuple(reverse)])
    assert likely.order == tuple(reverse)


def test_an_order_with_two_classes_swapped_is_not_as_good_as_the_likely_one():
    y, other = labels(200, 8), labels(200, 8, seed=2)
    swapped = torch.tensor([0, 1, 2, 4, 3, 5, 6, 7])
    found, tried = (answers(y, 8, 0.45)[:, swapped], y), answers(other, 8, 0.45, 3)[:, swapped]
    accuracy = measure_accuracy(found, tried, other, [tuple(swapped.tolist())])
    assert accuracy.order == tuple(swapped.tolist())
    assert accuracy.unsure == ()


@pytest.mark.parametrize("seed", range(3))
def test_classes_that_could_change_places_are_those_whose_exchange_loses_nothing(seed):
    y, order = labels(60, 5, seed), (2, 0, 1, 4, 3)
    answer = answers(torch.tensor(order)[y], 5, 0.5, seed).argmax(1)
    right = answer == torch.tensor(order)[y]
    expected = set()
    for a, b in itertools.combinations(range(5), 2):
        other = list(order)
        other[a], other[b] = other[b], other[a]
        exchanged = answer == torch.tensor(other)[y]
        won, lost = int((right & ~exchanged).sum()), int((exchanged & ~right).sum())
        if won + lost == 0 or binomtest(lost, won + lost, alternative="less").pvalue >= 0.05:
            expected |= {a, b}
    assert {*exchangeable(order, answer, y)} == expected


def test_normalisations_that_are_better_beyond_chance_come_best_first():
    y = labels(200, 4)
    shares = dict(zip(NORMALISATIONS, (0.9, 0.7, 0.31, 0.0), strict=True))
    of_triple = {triples: shares[name] for name, triples in NORMALISATIONS.items()}
    found = other_normalisations(lambda mean, std: answers(y, 4, of_triple[mean, std]), y, answers(y, 4, 0.3))
    names = list(NORMALISATIONS)
    assert list(found) == names[:2]
    assert found[names[0]] > found[names[1]] > 0.6
