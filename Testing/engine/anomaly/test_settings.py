"""What a map is made with: the parameters without gaps, and what the model's card says beside them."""

from dataclasses import fields, replace

from difftumor.anomaly.settings import resolve_settings
from difftumor.parameters import AnomalyParameters

OF_CARD = ["gate_probability", "floor", "direction"]


def test_every_parameter_is_there_and_none_is_empty():
    settings, notes = resolve_settings(AnomalyParameters(slices=(2, 5)), {"floor": 0.1}, "CT")
    told = settings.to_dict()
    assert set(told) == {item.name for item in fields(AnomalyParameters)} - {"model"} | set(OF_CARD)
    assert None not in told.values()
    assert notes == []


def test_side_cars_keep_the_order_that_they_had():
    settings, _ = resolve_settings(AnomalyParameters(), {}, "MR")
    names = list(settings.to_dict())
    at = names.index("gate") + 1
    assert names[at : at + 3] == OF_CARD
    assert (settings.direction, settings.floor) == ("both", 0.0)


def test_what_was_asked_for_wins_over_the_card():
    recommended = {"noise_level": 300, "steps": 50, "smoothing_mm": 2.0, "floor": 0.2}
    asked = AnomalyParameters(noise_level=200)
    settings, _ = resolve_settings(asked, recommended, "CT")
    assert (settings.noise_level, settings.steps, settings.floor) == (200, 50, 0.2)
    # The floor was measured on the recommended kind of map.
    settings, notes = resolve_settings(replace(asked, smoothing_mm=1.0), recommended, "CT")
    assert settings.floor == 0
    assert "floor" in notes[0]
