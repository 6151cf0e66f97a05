"""The nomogram: a Cox model in points (`model`, `axes`), published models (`published`), a web page (`calculator`)."""

from mtdlr.nomogram.model import Nomogram

__all__ = ["Nomogram"]
