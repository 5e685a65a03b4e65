import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from pipelines import metrics

P = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]])
LABELS = np.array([0, 0, 2, 1])


@st.composite
def answers(draw):
    """Probabilities and labels of some images."""
    classes = draw(st.integers(2, 8))
    count = draw(st.integers(1, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * draw(st.floats(0.01, 8))
    return softmax(logits, axis=1), generator.integers(classes, size=count)


def test_metrics_worked_out_by_hand():
    numbers = metrics.summary(metrics.outcomes(P, LABELS), [0, 0, 1])
    expected = {
        "accuracy": 2 / 4,
        "top5": 1.0,
        "precision": (1 / 2 + 0 + 1) / 3,
        "recall": (1 / 2 + 0 + 1) / 3,
        "f1": (1 / 2 + 0 + 1) / 3,
        "nll": -(math.log(0.7) + math.log(0.4) + math.log(0.4) + math.log(0.2)) / 4,
        "brier": (0.14 + 0.62 + 0.54 + 1.04) / 4,
        "ece": (0.3 + 0.5 + 0.6 + 0.6) / 4,
        "equal_mass_ece": (0.3 + 0.5 + 0.6 + 0.6) / 4,
        "superclass_accuracy": 1.0,
        "errors_within": 1.0,
        "aurc": (0 + 1 / 2 + 2 / 3 + 1 / 2) / 4,
        "excess_aurc": (1 / 2 + 1 / 3) / 4,
        "coverage_at_risk": 1 / 4,
    }
    assert 0 < numbers.pop("smooth_ece") < 0.5
    assert numbers == pytest.approx(expected, abs=1e-12)


@given(answers())
def test_metrics_agree_with_scikit_learn(answer):
    p, labels = answer
    classes = np.arange(p.shape[1])
    facts = metrics.outcomes(p, labels)
    numbers = metrics.summary(facts)
    for name, value in metrics.classification(facts["predicted"], labels).items():
        assert numbers[name] == pytest.approx(value, abs=1e-12)
    assert numbers["nll"] == pytest.approx(
        sklearn.metrics.log_loss(labels, p, labels=classes), rel=1e-9
    )
    np.testing.assert_array_equal(
        metrics.confusion(facts["predicted"], labels, len(classes)).toarray(),
        sklearn.metrics.confusion_matrix(labels, p.argmax(axis=1), labels=classes),
    )
    if len(classes) > 5:
        top5 = sklearn.metrics.top_k_accuracy_score(labels, p, k=5, labels=classes)
        assert numbers["top5"] == pytest.approx(top5)


@given(answers())
def test_calibration_agrees_with_a_second_formula(answer):
    p, labels = answer
    one_hot = np.eye(p.shape[1])[labels]
    numbers = metrics.summary(metrics.outcomes(p, labels))
    assert numbers["brier"] == pytest.approx(((p - one_hot) ** 2).sum(1).mean())
    error = 0.0
    for i in range(15):
        low, high = i / 15, (i + 1) / 15
        held = [j for j, row in enumerate(p) if low < row.max() <= high]
        if held:
            right = np.mean([p[j].argmax() == labels[j] for j in held])
            error += len(held) / len(p) * abs(right - np.mean(p[held].max(axis=1)))
    assert numbers["ece"] == pytest.approx(error, abs=1e-12)


def test_a_bin_has_its_upper_bound_and_not_its_lower_one():
    p = np.array([[0.2, 0.2, 0.2, 0.2, 0.2], [1.0, 0, 0, 0, 0]])
    table = metrics.reliability(metrics.outcomes(p, np.array([0, 1])), bins=5)
    assert table == {
        "low": [0.0, 0.2, 0.4, 0.6, 0.8],
        "high": [0.2, 0.4, 0.6, 0.8, 1.0],
        "count": [1, 0, 0, 0, 1],
        "confidence": [0.2, None, None, None, 1.0],
        "accuracy": [1.0, None, None, None, 0.0],
    }


def test_what_is_most_probable_is_told_by_the_more_precise_logarithms():
    p = np.array([[0.5, 0.5]])
    log_p = np.log([[0.5, 0.5]]) - [[1e-9, 0]]
    facts = metrics.outcomes(p, np.array([1]), log_p)
    assert (facts["predicted"].item(), facts["rank"].item()) == (1, 0)


@given(answers())
def test_the_rank_is_the_place_in_a_stable_sort(answer):
    p, labels = answer
    p = p.round(1)  # with ties
    order = np.argsort(-p, axis=1, kind="stable")
    places = [
        row.tolist().index(label) for row, label in zip(order, labels, strict=True)
    ]
    assert metrics.outcomes(p, labels)["rank"].tolist() == places


@given(answers(), st.data())
def test_folding_a_matrix_is_folding_the_labels(answer, data):
    p, labels = answer
    n = p.shape[1]
    of = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    predicted = p.argmax(axis=1)
    folded = metrics.fold(
        metrics.confusion(predicted, labels, n), of.tolist(), of.max() + 1
    )
    expected = metrics.confusion(of[predicted], of[labels], of.max() + 1).toarray()
    np.testing.assert_array_equal(folded, expected)
    numbers = metrics.summary(metrics.outcomes(p, labels), of.tolist())
    share = np.trace(folded) / len(labels)
    assert numbers["superclass_accuracy"] == pytest.approx(share)


@given(answers())
def test_the_classes_agree_with_scikit_learn(answer):
    p, labels = answer
    classes = np.arange(p.shape[1])
    matrix = metrics.confusion(p.argmax(axis=1), labels, len(classes))
    columns = sklearn.metrics.precision_recall_fscore_support(
        labels, p.argmax(axis=1), labels=classes, zero_division=0.0
    )
    ours = metrics.by_class(matrix)
    for name, column in zip(
        ("precision", "recall", "f1", "support"), columns, strict=True
    ):
        np.testing.assert_allclose(ours[name], column, atol=1e-12)


def test_classes_of_few_images_are_resampled_together():
    labels = np.repeat(np.arange(40), 1)
    assert len(set(metrics.strata(labels).tolist())) == 1
    labels = np.concatenate([np.repeat([7, 3], 10), [0, 1, 1, 5]])
    strata = metrics.strata(labels)
    assert len(set(strata.tolist())) == 3
    assert len(set(strata[20:].tolist())) == 1
    facts = {"label": np.arange(400), "right": np.arange(400) % 2 == 0}
    ends = metrics.bootstrap(
        facts, lambda f: {"share": float(np.mean(f["right"]))}, 1000
    )
    # The standard error of a share of a half is 1 / 40.
    assert np.diff(ends["share"]) == pytest.approx(2 * 1.96 / 40, rel=0.15)


def test_the_most_confused_pairs_come_first():
    matrix = csr_array(np.array([[9, 2, 0], [5, 9, 0], [0, 2, 9]]))
    assert metrics.confused_pairs(matrix, 9) == [(1, 0, 5), (0, 1, 2), (2, 1, 2)]
    assert metrics.confused_pairs(matrix, 1) == [(1, 0, 5)]


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true):
    generator = np.random.default_rng(0)
    logits = 3 * generator.normal(size=(20_000, 5))
    labels = np.array([generator.choice(5, p=row) for row in softmax(logits, axis=1)])
    log_p = log_softmax(true * logits, axis=1)
    fitted = metrics.fit_temperature(log_p, labels)
    assert fitted == pytest.approx(true, rel=0.03)

    def nll(temperature):
        scaled = metrics.tempered(log_p, temperature)
        return metrics.outcomes(np.exp(scaled), labels, scaled)["nll"].mean()

    assert nll(fitted) <= min(
        nll(fitted * step) for step in (0.99, 0.9999, 1.0001, 1.01)
    )


@given(answers(), st.floats(0.1, 10))
def test_tempering_is_softmax_of_the_divided_logits(answer, temperature):
    p, _ = answer
    expected = p ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    tempered = np.exp(metrics.tempered(metrics.log_of(p), temperature))
    np.testing.assert_allclose(tempered, expected, rtol=1e-9, atol=1e-12)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    generator = np.random.default_rng(1)
    labels = generator.integers(2, size=4000)
    predicted = np.where(generator.random(4000) < 0.7, labels, 1 - labels)
    facts = {"label": labels, "predicted": predicted}

    def accuracy(rows):
        return {"accuracy": float(np.mean(rows["label"] == rows["predicted"]))}

    low, high = metrics.bootstrap(facts, accuracy, 1000)["accuracy"]
    mean = accuracy(facts)["accuracy"]
    half = 1.96 * math.sqrt(mean * (1 - mean) / 4000)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=half / 10)


def test_the_bootstrap_gives_the_same_bytes_twice():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 4)), generator.integers(4, size=50)
    facts = metrics.outcomes(softmax(logits, axis=1), labels)

    def nll(rows):
        assert (np.bincount(rows["label"]) == np.bincount(labels)).all()
        return {"nll": float(rows["nll"].mean())}

    def draw(seed):
        return metrics.bootstrap(facts, nll, resamples=50, seed=seed)

    assert repr(draw(0)) == repr(draw(0)) != repr(draw(1))


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(0, 1))
def test_mcnemar_agrees_with_statsmodels(seed, count, share):
    generator = np.random.default_rng(seed)
    a, b = generator.random((2, count)) < [[share], [0.5]]
    table = [
        [np.sum(a & b), np.sum(a & ~b)],
        [np.sum(~a & b), np.sum(~a & ~b)],
    ]
    ours = metrics.mcnemar(a, b)
    assert (ours["only_a"], ours["only_b"]) == (table[0][1], table[1][0])
    if ours["only_a"] + ours["only_b"]:
        expected = reference_mcnemar(table, exact=True).pvalue
        assert ours["p"] == pytest.approx(expected, rel=1e-9)
    else:
        assert ours["p"] == 1


@settings(max_examples=8)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@pytest.mark.slow  # to import statsmodels takes seconds
def test_holm_agrees_with_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(metrics.holm(p_values), expected, atol=1e-12)


def test_holm_of_nothing_is_nothing():
    assert metrics.holm([]) == []
