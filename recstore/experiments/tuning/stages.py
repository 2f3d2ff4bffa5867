"""Decide which trial comes next: the search in stages, from the trials so far and nothing else. Pure.

A training with 1024 factors costs a hundred times one with 64, and what few factors show of the rest (regularization,
alpha, confidence, exponents) nearly holds for many. So:

1. *start*: the recommender's present settings, as they are
2. *explore*: each trainer with few factors, from its starting points and then by the sampler; then hybrids of the best als
   and the best spectral
3. *grow*: the best of each trainer with twice and four times the factors, as long as that pays
4. *refine*: around the best of all, until the budget is used up

The same trials give the same answer, so a search can be interrupted and resumed anywhere, and shared by several processes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from recstore.definition import RATINGS, Confidence, Hyperparameters
from recstore.experiments.tuning.sampling import PART, Noise, suggest
from recstore.experiments.tuning.space import OWN, Bounds, Choices, Parameters, Space
from recstore.experiments.tuning.trials import (
    TrialResult,
    Trials,
    best,
    guess,
    levels,
    of_trainer,
    rated,
    seconds_of,
)
from recstore.model import trainers

FACTORS = 64
"""Factors to explore with."""

EXPLORE_TRIALS, EXPLORE_SECONDS = 0.4, 0.3
"""Largest shares of the budget that exploring may take."""

SHARES = {"als": 3.0, "spectral": 1.0, "hybrid": 1.5}
"""Proportions of the explored trials; a trainer of another package counts as als."""

PAYS = 1.005
"""Least ratio of the values for which more factors pay: half a percent for twice the memory and time."""

SLOW = 0.8
"""Part of a trial's best value at its first point below which its regularization is too strong: factors hardly grow then."""

BEHIND = 0.8
"""Part of another trainer's value, with no more factors, below which a trainer is given up."""

ENOUGH = 5
"""Trials of a trainer that are explored in any case."""

RIVAL = 0.98
"""Part of the best value from which another trainer is refined, too: every third time."""

WORTH = 1.002
"""Least ratio of a better value with fewer factors that is worth a trial with all of them."""

LATEST = 5
"""Latest trials, from which the time of the next ones is estimated."""

STARTS: dict[str, tuple[Parameters, ...]] = {
    "als": (
        {},
        {"confidence": "power"},
        {"confidence": "binary"},
        {"alpha": 0.15},
        {"alpha": 6.0, "confidence": "log"},
    ),
    "spectral": ({}, {"view_exponent": 0.25}, {"view_exponent": 0.5, "item_exponent": 0.4, "ridge": 0.1}),
    "hybrid": ({}, {"spectral_weight": 0.15}, {"spectral_share": 0.5, "spectral_weight": 0.6}),
    RATINGS: ({"regularization": 1.0}, {"regularization": 0.7}, {"regularization": 1.4}),
}
"""Starting points of each trainer: its defaults, and points that lie apart from them; alpha as a multiple of the default."""

WIDE, NARROW = 0.2, 0.12
"""Parts of each range's width on either side of the best so far, to explore and to refine. On a simulated copy of a
retailer's landscape 16 trials of als came within 1.5 % of the best there was; with the whole ranges within 3.2 %."""


@dataclass(frozen=True)
class Plan:
    """The plan of a search. `start` are the present settings; the budget is `most_trials` trials, or `most_seconds` of all
    trials together, whichever is used up first. With `points` it is a grid of these and nothing else. `metric` is that of the
    curves."""

    space: Space
    start: Parameters
    most_trials: int
    most_seconds: float
    seed: int
    noise: Noise
    points: tuple[Parameters, ...] = ()
    metric: str = "ndcg@20"

    def next(self, trials: Trials) -> TrialResult | None:
        """Return the next trial, the same for the same trials; None when nothing is left, or others have to end first.
        `trials` are all there are, in order of their numbers."""
        if self.share(trials) >= 1:
            return None
        stages = {"start": self._start, "explore": self._explore, "grow": self._grow, "refine": self._refine}
        for stage, choose in ({"grid": self._grid} if self.points else stages).items():
            if parameters := choose(trials):
                return TrialResult(len(trials), "running", parameters, stage=stage)
        return None

    def share(self, trials: Trials) -> float:
        """Return the part of the budget that is used up, 0 to 1."""
        return min(1.0, max(len(trials) / self.most_trials, seconds_of(trials) / self.most_seconds))

    def left(self, trials: Trials) -> float | None:
        """Estimate the seconds that the rest will take; None before the first trial has ended."""
        ended = [trial for trial in trials if trial.finished and trial.seconds]
        if not ended:
            return None
        latest = ended[-LATEST:]
        rest = (self.most_trials - len(trials)) * seconds_of(latest) / len(latest)
        return max(0.0, min(rest, self.most_seconds - seconds_of(trials)))

    @property
    def base(self) -> int:
        """Return the number of factors to explore with."""
        low, high = self.space.factors
        return max(low, min(FACTORS, high))

    def _grid(self, trials: Trials) -> Parameters | None:
        return self.points[len(trials)] if len(trials) < len(self.points) else None

    def _start(self, trials: Trials) -> Parameters | None:
        if trials or not self.space.has(self.start):
            return None
        own = self.space.of(self.start["trainer"])
        return {name: self.start[name] for name in ("trainer", "factors", *own)}

    # explore

    def _explore(self, trials: Trials) -> Parameters | None:
        done = {trainer: _count(trials, "explore", trainer) for trainer in self.space.trainers}
        quota = {trainer: share for trainer, share in self._quotas(trials).items() if not self._lost(trainer, trials)}
        first = [trainer for trainer in quota if trainer != "hybrid" and done[trainer] < quota[trainer]]
        if first:
            trainer = min(first, key=lambda name: done[name] / quota[name])
        elif done.get("hybrid", 0) < quota.get("hybrid", 0):
            trainer = "hybrid"  # last, since it is made of the others
        else:
            return None
        return self._explored(trainer, self.base, trials)

    def _quotas(self, trials: Trials) -> dict[str, float]:
        """Return how many trials each trainer explores with: at least one, whatever the time."""
        shares = {trainer: SHARES.get(trainer, SHARES["als"]) for trainer in self.space.trainers}
        late = seconds_of(trials) >= EXPLORE_SECONDS * self.most_seconds
        whole = 0.0 if late else EXPLORE_TRIALS * self.most_trials / sum(shares.values())
        return {trainer: max(1.0, whole * share) for trainer, share in shares.items()}

    def _lost(self, trainer: str, trials: Trials) -> bool:
        """Return whether a trainer was explored enough to give it up."""
        return _count(trials, "explore", trainer) >= ENOUGH and self._behind(trainer, self.base, trials)

    # grow

    def _grow(self, trials: Trials) -> Parameters | None:
        """Return those with the fewest factors among the trainers that still grow."""
        found = [parameters for trainer in self.space.trainers if (parameters := self._grown(trainer, trials))]
        return min(found, key=lambda parameters: int(parameters["factors"]), default=None)

    def _grown(self, trainer: str, trials: Trials) -> Parameters | None:
        low, high = self.space.factors
        level, wanted = self._climbed(trainer, lambda now: min(2 * now, high), PAYS, trials)
        top = best(trials)
        explored = top is not None and top.stage != "start" and top.parameters["trainer"] == trainer
        if wanted is None and level == self.base and explored:  # fewer may be as good, or better
            level, wanted = self._climbed(trainer, lambda now: max(now // 2, low), 1.0, trials)
        if wanted is None or self._behind(trainer, level, trials):
            return None
        return wanted if self._affordable(trainer, wanted["factors"], trials) else None

    def _climbed(
        self, trainer: str, step: Callable[[int], int], pays: float, trials: Trials
    ) -> tuple[int, Parameters | None]:
        """Follow the numbers of factors from the base as long as the next one pays. Return the last that did, and what is left
        to try with the next one."""
        every = of_trainer(trials, trainer)
        own = [trial for trial in every if trial.stage != "start"]
        tops, with_start, level = levels(own), levels(every), self.base
        while level in tops and (after := step(level)) != level:
            tried = [trial.parameters for trial in own if trial.parameters["factors"] == after]
            wanted = self._candidates(with_start[level].parameters, after, trials)
            left = [parameters for parameters in wanted if parameters not in tried]
            pay = after in tops and (tops[after].value or 0.0) >= pays * (tops[level].value or 0.0)
            enough = 1 if pay and not self._slow(tops[after]) else len(wanted)
            if left and len(tried) < enough:
                return level, left[0]
            if not pay:
                break
            level = after
        return level, None

    def _candidates(self, top: Parameters, factors: int, trials: Trials) -> list[Parameters]:
        """Return what to try with another number of factors, until it pays: what is best with the present one, with the
        regularization that corresponds, then with half or twice of it; a hybrid first with the best of its parts."""
        own = self.space.of(top["trainer"])
        there = self.noise.to(top, own) | {"factors": factors}
        moved = self.noise.back(there, own)
        if top["trainer"] == "hybrid":
            mixed = self.noise.back(there | self._parts(trials) | {"factors": factors}, own)
            return [mixed, moved] if mixed != moved else [mixed]
        if PART not in there:
            return [moved]
        slow = any(self._slow(trial) for trial in trials if trial.parameters == moved)
        return [moved, self.noise.back(there | {PART: there[PART] * (0.5 if slow else 2.0)}, own)]

    def _slow(self, trial: TrialResult) -> bool:
        points = [point.validation[self.metric] for point in trial.curve]
        return bool(points) and points[0] < SLOW * max(points)

    def _behind(self, trainer: str, factors: int, trials: Trials) -> bool:
        """Return whether another trainer reaches far more with no more factors."""

        def reached(among: Sequence[TrialResult]) -> float:
            return max((top.value or 0.0 for level, top in levels(among).items() if level <= factors), default=0.0)

        return reached(of_trainer(trials, trainer)) < BEHIND * reached(trials)

    # refine

    def _refine(self, trials: Trials) -> Parameters | None:
        """Return something near the best; three of four times with fewer factors, which cost little and show nearly as much.
        What is better there is tried with all of them."""
        centre = self._centre(trials)
        if centre is None:
            return self._explored(self.space.trainers[0], self.base, trials)
        trainer, factors = centre.parameters["trainer"], centre.parameters["factors"]
        known = [level for level in levels(of_trainer(trials, trainer)) if self.base <= level <= factors // 4]
        fewer = max(known, default=min(self.base, factors))
        done = sum(trial.stage == "refine" for trial in trials)
        parameters = self._promoted(trainer, fewer, factors, trials)
        if parameters is None:
            here = factors if done % 4 == 3 else fewer
            parameters = self._near(centre.parameters, here, trials)
        if self._affordable(trainer, parameters["factors"], trials):
            return parameters
        if self._affordable(trainer, factors, trials):
            return self._near(centre.parameters, factors, trials)
        return None

    def _centre(self, trials: Trials) -> TrialResult | None:
        """Return the best trial with the fewest factors from which more do not pay, or every third time that of another trainer
        that comes close to it."""
        own = [levels(of_trainer(trials, trainer)).values() for trainer in self.space.trainers]
        tops = [next(top for top in known if _level_enough(top, known)) for known in own if known]
        tops.sort(key=lambda trial: -(trial.value or 0.0))
        refined = sum(trial.stage == "refine" for trial in trials)
        rival = len(tops) > 1 and (tops[1].value or 0.0) >= RIVAL * (tops[0].value or 0.0)
        return tops[1] if rival and refined % 3 == 2 else next(iter(tops), None)

    def _promoted(self, trainer: str, fewer: int, factors: int, trials: Trials) -> Parameters | None:
        """Return the best parameters with fewer factors, if refining found them and they are better there than all that were
        tried with more."""
        own = of_trainer(trials, trainer)
        top = levels(own).get(fewer)
        if top is None or top.stage != "refine" or fewer == factors:
            return None
        tried = [trial.parameters for trial in own if trial.parameters["factors"] == factors]
        complete = [t for t in own if t.state == "complete" and t.parameters["factors"] == fewer]
        known = [t.value or 0.0 for t in complete if self._moved(t.parameters, factors) in tried]
        wanted = self._moved(top.parameters, factors)
        better = not known or (top.value or 0.0) >= WORTH * max(known, default=0.0)
        return wanted if wanted not in tried and better else None

    def _affordable(self, trainer: str, factors: int, trials: Trials) -> bool:
        return guess(trials, trainer, factors) <= self.most_seconds - seconds_of(trials)

    # parameters

    def _explored(self, trainer: str, factors: int, trials: Trials) -> Parameters:
        """Return the trainer's next starting point, or something within a wide range around its best."""
        own = self.space.of(trainer)
        bounds, begin = self.noise.bounds(own), self._defaults()
        if trainer == "hybrid":  # made of the best of its parts; only their mixture is left to find
            parts = self._parts(trials)
            near = parts.keys() & bounds.keys()
            begin |= parts
            bounds = _around(bounds, begin, NARROW / 2, near)
            bounds |= {name: Choices((begin[name],)) for name in near if isinstance(bounds[name], Choices)}
        fixed: Parameters = {"trainer": trainer, "factors": factors}
        tried = [trial.parameters for trial in trials]
        for change in STARTS.get(trainer, ({},)):
            start = begin | change | {"alpha": begin["alpha"] * change.get("alpha", 1.0)}
            point = {name: bound.nearest(start[name]) for name, bound in bounds.items()}
            parameters = self.noise.back(fixed | point, own)
            if parameters not in tried:
                return parameters
        if top := best(of_trainer(trials, trainer)):
            bounds = _around(bounds, self.noise.to(top.parameters, own), WIDE, bounds)
        return self._suggested(fixed, bounds, trials)

    def _parts(self, trials: Trials) -> Parameters:
        """Return the best parameters of als and of spectral, the regularization as a part of the noise."""
        found: Parameters = {}
        own = self.space.of("hybrid")
        for part in ("als", "spectral"):
            if top := best(of_trainer(trials, part)):
                names = ("factors", *OWN[part])
                found |= self.noise.to({name: top.parameters[name] for name in names if name in top.parameters}, own)
        return found

    def _moved(self, parameters: Parameters, factors: int) -> Parameters:
        """Return the same with another number of factors, and the regularization that corresponds."""
        own = self.space.of(parameters["trainer"])
        return self.noise.back(self.noise.to(parameters, own) | {"factors": factors}, own)

    def _near(self, centre: Parameters, factors: int, trials: Trials) -> Parameters:
        """Return parameters near these, for the same trainer with this number of factors."""
        trainer = centre["trainer"]
        own = self.space.of(trainer)
        bounds = self.noise.bounds(own)
        bounds = _around(bounds, self.noise.to(centre, own), NARROW, bounds)
        return self._suggested({"trainer": trainer, "factors": factors}, bounds, trials)

    def _suggested(self, fixed: Parameters, bounds: dict[str, Bounds], trials: Trials) -> Parameters:
        """Return the trainer and the factors of `fixed` with the sampler's values for the rest."""
        trainer = fixed["trainer"]
        own = self.space.of(trainer)
        seen = [(self.noise.to(parameters, own), rate) for parameters, rate in rated(trials, trainer)]
        seed = (self.seed * 1_000_003 + len(trials)) % 2**31
        return self.noise.back(fixed | suggest(bounds, seen, seed), own)

    def _defaults(self) -> Parameters:
        """Return the settings of a recommender that sets none; the regularization as a part of the noise."""
        weighting = Confidence().model_dump() | {"confidence": Confidence().function}
        return Hyperparameters().model_dump() | weighting | {"alpha": self.noise.alpha, PART: trainers.NOISE}


def _level_enough(top: TrialResult, others: Collection[TrialResult]) -> bool:
    """Return whether no number of factors is better by what pays."""
    return all((other.value or 0.0) < PAYS * (top.value or 0.0) or other is top for other in others)


def _count(trials: Trials, stage: str, trainer: str) -> int:
    return sum(trial.stage == stage for trial in of_trainer(trials, trainer))


def _around(
    bounds: Mapping[str, Bounds], centre: Parameters, spread: float, names: Collection[str]
) -> dict[str, Bounds]:
    """Return the bounds with those of `names` narrowed around the centre."""
    return {
        name: bound.around(centre[name], spread) if name in names and name in centre else bound
        for name, bound in bounds.items()
    }
