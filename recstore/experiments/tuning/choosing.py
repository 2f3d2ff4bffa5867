"""Parameters for a trial, from where a trainer begins or near what was good, by the sampler. Pure."""

from dataclasses import dataclass

from recstore.definition import Confidence, Hyperparameters
from recstore.experiments.tuning import sampling
from recstore.experiments.tuning.noise import PART, Noise
from recstore.experiments.tuning.space import OWN, Bounds, Parameters, Space, inside, narrow
from recstore.experiments.tuning.trials import Trials, best, of_trainer, rated
from recstore.model import trainers

STARTS: dict[str, tuple[Parameters, ...]] = {
    "als": ({}, {"confidence": "binary"}, {"alpha": 0.15}, {"alpha": 6.0, "confidence": "log"}),
    "spectral": ({}, {"singular_exponent": 0.0}, {"singular_exponent": 1.0, "item_exponent": 0.2}),
    "hybrid": ({}, {"spectral_weight": 0.15}, {"spectral_share": 0.5, "spectral_weight": 0.6}),
}
"""Where each trainer begins: its defaults, and points that lie apart from them; alpha as a multiple of the default."""

WIDE, NARROW = 0.2, 0.12
"""Of the width of each range, on either side of the best so far: where is explored, and where is refined. On a made-up copy
of a retailer's landscape, 16 trials of als came within 1.5 % of the best there was, with the whole ranges within 3.2 %."""


@dataclass(frozen=True)
class Chooser:
    """What parameters are chosen from. `seed` is the search's; each number of trials has another of its own."""

    space: Space
    noise: Noise
    seed: int

    def explored(self, trainer: str, factors: int, trials: Trials) -> Parameters:
        """The trainer's next starting point, or something widely around its best."""
        own = self.space.of(trainer)
        bounds, begin = self.noise.bounds(own), self._defaults()
        if trainer == "hybrid":  # made of what was best of its parts; how to mix them is what is left to find out
            for part in ("als", "spectral"):
                if found := best(of_trainer(trials, part)):
                    known = {name: found.parameters[name] for name in OWN[part] if name in found.parameters}
                    begin |= self.noise.to(known, own)
                    bounds = self._around(bounds, begin, NARROW / 2, {*OWN[part], PART}, keep_choice=True)
        fixed: Parameters = {"trainer": trainer, "factors": factors}
        tried = [trial.parameters for trial in trials]
        for change in STARTS.get(trainer, ({},)):
            start = begin | change | {"alpha": begin["alpha"] * change.get("alpha", 1.0)}
            point = {name: inside(start[name], bound) for name, bound in bounds.items()}
            parameters = fixed | self.noise.back(point, own)
            if parameters not in tried:
                return parameters
        if top := best(of_trainer(trials, trainer)):
            bounds = self._around(bounds, self.noise.to(top.parameters, own), WIDE, set(bounds))
        return fixed | self._suggested(trainer, bounds, trials)

    def near(self, centre: Parameters, trials: Trials) -> Parameters:
        """Something like these parameters, of the same trainer with as many factors."""
        own = self.space.of(centre["trainer"])
        bounds = self.noise.bounds(own)
        bounds = self._around(bounds, self.noise.to(centre, own), NARROW, set(bounds))
        fixed = {name: centre[name] for name in ("trainer", "factors")}
        return fixed | self._suggested(centre["trainer"], bounds, trials)

    def _around(
        self,
        bounds: dict[str, Bounds],
        centre: Parameters,
        spread: float,
        names: set[str],
        *,
        keep_choice: bool = False,
    ) -> dict[str, Bounds]:
        return {
            name: narrow(bound, centre[name], spread, keep_choice=keep_choice)
            if name in names and name in centre
            else bound
            for name, bound in bounds.items()
        }

    def _suggested(self, trainer: str, bounds: dict[str, Bounds], trials: Trials) -> Parameters:
        own = self.space.of(trainer)
        seen = [(self.noise.to(parameters, own), rate) for parameters, rate in rated(trials, trainer)]
        seed = (self.seed * 1_000_003 + len(trials)) % 2**31
        return self.noise.back(sampling.suggest(bounds, seen, seed), own)

    def _defaults(self) -> Parameters:
        """What a recommender has that says nothing; for the regularization the part of the noise that it takes then."""
        weighting = Confidence().model_dump() | {"confidence": Confidence().function}
        return Hyperparameters().model_dump() | weighting | {"alpha": self.noise.alpha, PART: trainers.NOISE}
