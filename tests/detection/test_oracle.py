"""Each detector against somebody else's code or the textbook formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp, softmax
from sklearn.cluster import KMeans
from sklearn.covariance import EmpiricalCovariance
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import PowerTransformer, StandardScaler, normalize
from torch import Tensor, nn

from oodream.core import registry
from oodream.core.types import Detector, ForwardPass, Head, Output
from oodream.data.images import Images, from_array
from oodream.detection.detectors import RIDGE
from oodream.models.inference import Extractor


def outputs(n: int, seed: int, classes: int = 5, width: int = 9) -> tuple[Output, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    z = (
        torch.randn(n, width, generator=g) @ torch.randn(width, width, generator=g)
        + 2 * torch.eye(classes, width)[y]
    )
    return Output(logits_BC=3 * torch.randn(n, classes, generator=g), z_BF=z), y


FIT, TEST = outputs(300, 0), outputs(60, 1)[0]
LOGITS, Z, Z_FIT, Y_FIT = (
    t.numpy() for t in (TEST.logits_BC.double(), TEST.z_BF.double(), FIT[0].z_BF.double(), FIT[1])
)


def score(name: str, output: Output = TEST, **options: int) -> np.ndarray:
    return registry.make("detectors", name, **options).fit(*FIT).score(output).numpy()


def test_msp_is_log_of_one_minus_the_largest_probability() -> None:
    np.testing.assert_allclose(score("msp"), np.log(1 - softmax(LOGITS, axis=1).max(1)), rtol=1e-7)


def test_msp_does_not_saturate() -> None:
    logits = torch.zeros(3, 4)
    logits[:, 2] = torch.tensor(
        [50.0, 100.0, 800.0]
    )  # 1 - p = 3 exp(-logit), to far below float64's resolution at one
    np.testing.assert_allclose(
        score("msp", Output(logits_BC=logits, z_BF=logits)), np.log(3) - np.array([50, 100, 800])
    )


def test_max_logit() -> None:
    np.testing.assert_array_equal(score("max_logit"), -np.max(LOGITS, axis=1))


def test_energy_and_its_overflow() -> None:
    np.testing.assert_allclose(score("energy"), -logsumexp(LOGITS, axis=1), rtol=1e-12)
    big = torch.tensor([[1e4, 1e4]])
    np.testing.assert_allclose(
        score("energy", Output(logits_BC=big, z_BF=big)), [-1e4 - np.log(2)], rtol=1e-12
    )


def test_energy_gen_is_the_stranger_of_two_standardised_scores() -> None:
    def both(logits: np.ndarray) -> np.ndarray:
        p = softmax(logits, axis=1)
        return np.stack([-logsumexp(logits, axis=1), (p**0.2 * (1 - p) ** 0.2).sum(1)])

    scores = StandardScaler().fit(both(FIT[0].logits_BC.double().numpy()).T).transform(both(LOGITS).T)
    np.testing.assert_allclose(score("energy_gen", gamma=0.2), scores.max(1), rtol=1e-9)
    assert 10 < scores.argmax(1).sum() < 50, "each of the two is the stranger one now and then"


def test_energy_gen_refuses_images_that_do_not_differ() -> None:
    same = Output(logits_BC=torch.ones(4, 3), z_BF=torch.ones(4, 2))
    with pytest.raises(ValueError, match="energy and entropy differ"):
        registry.make("detectors", "energy_gen").fit(same, torch.arange(4) % 3)


@pytest.mark.parametrize("k", [1, 10, 50])
def test_knn_against_scikit_learn(k: int) -> None:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(normalize(Z_FIT))
    np.testing.assert_allclose(score("knn", k=k), search.kneighbors(normalize(Z))[0][:, -1], rtol=1e-5)


def test_knn_survives_a_zero_feature_and_a_small_bank() -> None:
    nothing = Output(logits_BC=torch.zeros(1, 5), z_BF=torch.zeros(1, 9))
    np.testing.assert_allclose(score("knn", nothing), [1.0], rtol=1e-6)
    np.testing.assert_allclose(score("knn", k=301), score("knn", k=len(Z_FIT)))


def mahalanobis_oracle(z_fit: np.ndarray, z: np.ndarray) -> np.ndarray:
    means = np.stack([z_fit[c == Y_FIT].mean(0) for c in range(5)])
    cov = EmpiricalCovariance(assume_centered=True).fit(z_fit - means[Y_FIT]).covariance_
    precision = np.linalg.inv(cov + RIDGE * np.trace(cov) / len(cov) * np.eye(len(cov)))
    difference = z[:, None] - means[None]
    return np.einsum("ncf,fg,ncg->nc", difference, precision, difference).min(1)


def test_mahalanobis_against_scikit_learn() -> None:
    np.testing.assert_allclose(score("mahalanobis"), mahalanobis_oracle(Z_FIT, Z), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_mahalanobis_does_not_depend_on_the_features_scale(scale: float) -> None:
    fit = Output(logits_BC=FIT[0].logits_BC, z_BF=FIT[0].z_BF.double() * scale)
    test = Output(logits_BC=TEST.logits_BC, z_BF=TEST.z_BF.double() * scale)
    scaled = registry.make("detectors", "mahalanobis").fit(fit, FIT[1]).score(test).numpy()
    np.testing.assert_allclose(scaled, score("mahalanobis"), rtol=1e-6)


def test_mahalanobis_bears_dead_features_and_names_what_it_cannot_bear() -> None:
    dead = Output(logits_BC=FIT[0].logits_BC, z_BF=FIT[0].z_BF * (torch.arange(9) != 4))
    assert registry.make("detectors", "mahalanobis").fit(dead, FIT[1]).score(TEST).isfinite().all()
    with pytest.raises(ValueError, match="no training sample of class 3"):
        registry.make("detectors", "mahalanobis").fit(FIT[0], FIT[1].where(FIT[1] != 3, 0))
    with pytest.raises(ValueError, match="vary within classes"):
        registry.make("detectors", "mahalanobis").fit(
            Output(logits_BC=torch.zeros(5, 5), z_BF=torch.eye(5)), torch.arange(5)
        )


# What no peer has, or has otherwise: against the definitions in numpy


HEAD = Head(
    weight_CF=torch.randn(5, 9, generator=torch.Generator().manual_seed(3)),
    bias_C=torch.randn(5, generator=torch.Generator().manual_seed(4)),
    energy_C=torch.linspace(0.2, 2, 5),
)
W, B = HEAD.weight_CF.double().numpy(), HEAD.bias_C.double().numpy()


def fitted(name: str, **options: float) -> Detector:
    return registry.make("detectors", name, **options).fit(*FIT, HEAD)


def energy(z: np.ndarray) -> np.ndarray:
    return -logsumexp(z @ W.T + B, axis=1)


def test_the_residual_is_what_the_principal_directions_leave() -> None:
    origin = -np.linalg.pinv(W) @ B
    _, _, directions = np.linalg.svd(Z_FIT - origin)
    left = (Z - origin) - (Z - origin) @ directions[:4].T @ directions[:4]
    np.testing.assert_allclose(
        fitted("residual", dim=4).score(TEST).numpy(), np.linalg.norm(left, axis=1), rtol=1e-9
    )


def test_vra_zeroes_what_is_small_and_cuts_what_is_large() -> None:
    low, high = np.quantile(Z_FIT, [0.3, 0.9])
    shaped = np.where(low > Z, 0, np.minimum(Z, high))
    np.testing.assert_allclose(
        fitted("vra", low=0.3, high=0.9).score(TEST).numpy(), energy(shaped), rtol=1e-9
    )


def test_ssd_of_one_cluster_is_mahalanobis_of_unit_features() -> None:
    u_fit = normalize(Z_FIT)
    fit = EmpiricalCovariance().fit(u_fit)
    # Our ridge of 1e-6 of the mean variance is all that differs.
    np.testing.assert_allclose(fitted("ssd").score(TEST).numpy(), fit.mahalanobis(normalize(Z)), rtol=1e-3)


def test_ssd_of_more_clusters_takes_the_nearest() -> None:
    centres = KMeans(3, n_init=4, random_state=0).fit(normalize(Z_FIT))
    each = [
        EmpiricalCovariance().fit(normalize(Z_FIT)[centres.labels_ == m]).mahalanobis(normalize(Z))
        for m in range(3)
    ]
    np.testing.assert_allclose(fitted("ssd", clusters=3).score(TEST).numpy(), np.min(each, axis=0), rtol=1e-3)


def test_gmm_is_the_mixtures_negative_log_likelihood() -> None:
    means = np.stack([Z_FIT[c == Y_FIT].mean(0) for c in range(5)])
    ridge = RIDGE * Z_FIT.var(0).mean()
    mixture = GaussianMixture(
        5, covariance_type="tied", means_init=means, reg_covar=ridge, random_state=0
    ).fit(Z_FIT)
    np.testing.assert_allclose(fitted("gmm").score(TEST).numpy(), -mixture.score_samples(Z), rtol=1e-6)


def test_weiper_compares_histograms() -> None:
    """One image at a time, bins by numpy."""
    detector = fitted("weiper", repeats=7, bins=20, smooth=5, lambda_1=0.7, lambda_2=0.4)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(7, 5, 9, generator=g, dtype=torch.float64).numpy()
    noise /= np.linalg.norm(noise, axis=2, keepdims=True)
    heads = W + 2.1 * noise * np.linalg.norm(W, axis=1, keepdims=True)

    def logits(z: np.ndarray) -> np.ndarray:
        return np.concatenate([z @ head.T + B for head in heads], axis=1)

    def histogram(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
        return np.histogram(values, bins=20, range=span)[0] / values.size

    def divergence(q: np.ndarray, p: np.ndarray, floor: float) -> float:
        padded = np.pad(q, (2, 2), mode="edge")
        q = np.convolve(padded, np.ones(5) / 5, mode="valid") + floor
        p = p + floor
        p, q = p / p.sum(), q / q.sum()
        return float((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum())

    expected = np.zeros(len(Z))
    for features, fit, floor, weight in ((Z, Z_FIT, 0.01, 1.0), (logits(Z), logits(Z_FIT), 0.025, 0.7)):
        span = (fit.min(), fit.max())
        typical = np.mean([histogram(row, span) for row in fit], axis=0)
        expected += [weight * divergence(histogram(row, span), typical, floor) for row in features]
    msp = [np.mean([softmax(W_r @ z + B).max() for W_r in heads]) for z in Z]
    np.testing.assert_allclose(detector.score(TEST).numpy(), expected - 0.4 * np.array(msp), rtol=1e-7)


def test_adascale_has_a_percentile_for_every_image() -> None:
    """The definition, one image at a time; the probe is a random change of the features."""
    options = {"low": 0.3, "high": 0.8, "k1": 0.4, "k2": 0.2, "weight": 2.0, "pixels": 0.1}
    detector = registry.make("detectors", "adascale", **options)
    key = detector.probes[0].key
    g = torch.Generator().manual_seed(9)

    def with_view(output: Output) -> Output:
        return Output(
            logits_BC=output.logits_BC, z_BF=output.z_BF,
            probes={key: output.z_BF + torch.randn(output.z_BF.shape, generator=g)},
        )  # fmt: skip

    fit, test = with_view(FIT[0]), with_view(TEST)
    found = detector.fit(fit, FIT[1], HEAD).score(test).numpy()

    def q(output: Output) -> np.ndarray:
        z, moved = output.z_BF.double().numpy(), output.probes[key].double().numpy()
        order = np.argsort(-z, axis=1, kind="stable")
        rows = np.arange(len(z))[:, None]
        reached = np.maximum(moved, 0)[rows, order[:, :3]].sum(1)  # 0.4 of 9 features
        return reached + 2 * np.abs(moved - z)[rows, order[:, :1]].sum(1)

    typical = np.sort(q(fit))
    for row, own in enumerate(q(test)):
        p = 0.3 + (1 - (typical <= own).mean()) * 0.5
        z = Z[row]
        positive = np.sort(np.maximum(z, 0))[::-1]
        ratio = positive.sum() / positive[: max(1, 9 - round(9 * p))].sum()
        assert found[row] == pytest.approx(energy(z[None] * np.exp(ratio))[0], rel=1e-6)


class Curved(nn.Module):
    """Four smooth features of two pixels, in float64."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(6, 4, generator=g).double())
        self.head = nn.Linear(4, 3).double()

    def forward(self, images_B3HW: Tensor) -> Output:
        x = images_B3HW.double().flatten(1) / 255
        z = torch.tanh(x @ self.weight)
        return Output(logits_BC=self.head(z), z_BF=z)


def test_perturbed_mahalanobis_steps_down_its_own_score() -> None:
    """By finite differences of a distance that scikit-learn measures, pixel by pixel."""
    g = torch.Generator().manual_seed(4)
    pixels = torch.randint(20, 236, (70, 3, 1, 2), generator=g).to(torch.uint8)
    fit = from_array("fit", pixels[:60], torch.arange(60) % 3, "abc")
    test = from_array("test", pixels[60:], torch.zeros(10), "abc")
    network = Curved()
    weight = network.weight.detach().numpy()

    def features(x: np.ndarray) -> np.ndarray:
        return np.tanh(x.reshape(len(x), 6) / 255 @ weight)

    z, y = features(pixels[:60].numpy()), fit.labels.numpy()
    means = np.stack([z[y == c].mean(0) for c in range(3)])
    spread = EmpiricalCovariance(assume_centered=True).fit(z - means[y])

    def distance(x: np.ndarray) -> np.ndarray:
        from_means = features(x)[:, None] - means
        return np.min([spread.mahalanobis(from_means[:, c]) for c in range(3)], axis=0)

    x = pixels[60:].double().numpy()
    for epsilon in (0.0, 0.002, 0.05):
        detector = registry.make("detectors", "perturbed_mahalanobis", epsilon=epsilon)
        assert detector.probes == []  # which way is down is known once it is fitted
        detector.fit(Extractor(network)(fit), fit.labels)
        slope = np.zeros_like(x)
        for at in np.ndindex(x.shape[1:]):
            step = np.zeros_like(x)
            step[(slice(None), *at)] = 1e-3
            slope[(slice(None), *at)] = distance(x + step) - distance(x - step)
        expected = distance(x - 255 * epsilon * np.sign(slope))
        ours = detector.score(Extractor(network)(test, detector.probes)).numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        assert epsilon == 0 or (expected < distance(x)).mean() > 0.8


def test_what_perturbed_mahalanobis_wants_of_an_image_is_told_by_what_it_has_learned(tmp_path: Path) -> None:
    """A cache of outputs must not mix detectors that are fitted to other images."""
    g = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (90, 3, 1, 2), generator=g).to(torch.uint8)
    first, second, test = (
        from_array(str(i), part, torch.arange(30) % 3, "abc") for i, part in enumerate(pixels.split(30))
    )
    extractor = Extractor(Curved(), cache=tmp_path)
    detectors = [
        registry.make("detectors", "perturbed_mahalanobis", epsilon=0.02).fit(extractor(one), one.labels)
        for one in (first, second, first)
    ]
    keys = [detector.probes[0].key for detector in detectors]
    assert keys[0] == keys[2] != keys[1]
    for detector in detectors:
        fresh = Extractor(extractor.network)(test, detector.probes)
        assert torch.equal(detector.score(extractor(test, detector.probes)), detector.score(fresh))


def test_normalized_mahalanobis_is_that_of_unit_features() -> None:
    np.testing.assert_allclose(
        score("normalized_mahalanobis"), mahalanobis_oracle(normalize(Z_FIT), normalize(Z)), rtol=1e-5
    )
    longer = Output(logits_BC=TEST.logits_BC, z_BF=TEST.z_BF * torch.linspace(0.1, 30, len(TEST))[:, None])
    np.testing.assert_allclose(score("normalized_mahalanobis", longer), score("normalized_mahalanobis"))


@pytest.mark.parametrize("normalized", [False, True])
def test_relative_mahalanobis_takes_away_the_distance_to_all(normalized: bool) -> None:
    z_fit, z = (normalize(Z_FIT), normalize(Z)) if normalized else (Z_FIT, Z)
    everything = EmpiricalCovariance().fit(z_fit).mahalanobis(z)
    name = "normalized_relative_mahalanobis" if normalized else "relative_mahalanobis"
    np.testing.assert_allclose(score(name), mahalanobis_oracle(z_fit, z) - everything, rtol=1e-3, atol=1e-3)


def published_edges(m: int = 50) -> np.ndarray:
    """Of NAC's intervals, as its paper's repository makes them: m edges."""
    x = np.log(np.linspace(1, np.sqrt(1000), m // 2)) / np.log(1000)
    edges = np.concatenate([x[:-1], (1 - x)[::-1]])
    edges[-1] += 0.01
    return np.append(edges, 1.2)


@pytest.mark.parametrize("alpha", [0.3, 5.0])
def test_nac_counts_how_many_training_images_were_in_a_neurons_state(alpha: float) -> None:
    """Gradients by autograd, and one neuron and one image at a time."""

    def influence(z: Tensor) -> np.ndarray:
        z = z.double().clone().requires_grad_()
        logits = z @ HEAD.weight_CF.double().T + HEAD.bias_C.double()
        uniform = torch.full_like(logits, 1 / logits.shape[1])
        divergence = (uniform * (uniform.log() - logits.log_softmax(1))).sum()
        (slope,) = torch.autograd.grad(divergence, z)
        return (z * slope).detach().numpy()

    def with_logits(z: Tensor) -> Output:
        return Output(logits_BC=z @ HEAD.weight_CF.T + HEAD.bias_C, z_BF=z)

    size = np.abs(influence(FIT[0].z_BF)).mean()
    fit, test = (expit(alpha / size * influence(z)) for z in (FIT[0].z_BF, TEST.z_BF))
    edges = published_edges()
    counts = np.stack([np.histogram(column, edges)[0] for column in fit.T])
    covered = np.minimum(counts / (0.1 * len(fit)), 1)
    expected = []
    for row in test:
        places = [np.searchsorted(edges, value, side="right") - 1 for value in row]
        expected.append(-np.mean([covered[f, place] for f, place in enumerate(places)]))
    detector = registry.make("detectors", "nac", alpha=alpha, full=0.1)
    detector.fit(with_logits(FIT[0].z_BF), FIT[1], HEAD)
    scores = detector.score(with_logits(TEST.z_BF)).numpy()
    np.testing.assert_allclose(scores, expected, atol=2 / (len(Z[0]) * 0.1 * len(fit)))  # float32 logits
    assert len(np.unique(scores)) > 30


class Layers(torch.nn.Module):
    """Two layers with activation functions: one a module, one a function, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 9, 3)
        self.act, self.head = torch.nn.GELU(), torch.nn.Linear(9, 5)

    def forward(self, images: Tensor) -> Output:
        x = self.act(self.first(images.float() / 255))
        z = torch.relu_(self.second(x)).mean((2, 3))
        return Output(logits_BC=self.head(z), z_BF=z)


def test_combood_is_its_two_distances() -> None:
    torch.manual_seed(3)
    network, g = Layers().eval(), torch.Generator().manual_seed(4)
    fit, test = (
        from_array(
            "x", torch.randint(0, 256, (n, 3, 8, 8), generator=g).to(torch.uint8), torch.arange(n) % 5, ()
        )
        for n in (120, 30)
    )
    detector, extractor = registry.make("detectors", "combood", k=7), Extractor(network)
    training = extractor(fit, detector.probes)
    detector.fit(training, fit.labels)

    def extremes(images: Images) -> np.ndarray:
        with torch.no_grad():
            before = network.first(images.batch(range(len(images))).float() / 255)
            deep = network.second(network.act(before))
            logits = network.head(torch.relu(deep).mean((2, 3)))
        ends = [
            f(x.flatten(1)).values
            for x in (before, deep)
            for f in (lambda x: x.max(1), lambda x: (-x).max(1))
        ]
        return torch.stack([logits.amax(1), -logits.amin(1), *ends], 1).double().numpy()

    scaler = StandardScaler().fit(extremes(fit))
    power = PowerTransformer().fit(scaler.transform(extremes(fit)))
    x_fit, x = (power.transform(scaler.transform(extremes(images))) for images in (fit, test))
    inverse = np.linalg.inv(np.cov(x_fit, rowvar=False, bias=True) + np.eye(x.shape[1]))
    far = np.einsum("ne,ef,nf->n", x, inverse, x)
    z_fit, z = (normalize(extractor(images).z_BF.numpy()) for images in (fit, test))
    search = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(z_fit)
    near = np.log(search.kneighbors(z)[0][:, -1] ** 2)
    expected = far + np.sqrt(9) * near
    np.testing.assert_allclose(detector.score(extractor(test, detector.probes)).numpy(), expected, rtol=1e-3)


def test_a_network_without_activation_functions_cannot_serve_combood() -> None:
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))

    def network(images: Tensor) -> Output:
        return Output(logits_BC=linear(images.float()), z_BF=images.float().flatten(1))

    forward = ForwardPass(model=network, images_B3HW=torch.rand(2, 3, 2, 2), output=TEST)  # type: ignore
    with pytest.raises(ValueError, match="CombOOD needs a network with activation functions"):
        registry.make("detectors", "combood").probes[0](forward)
