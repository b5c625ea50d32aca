"""Which parsers are fuzzed? All that read bytes which others wrote."""

from __future__ import annotations

from tests.fuzz import asked, placed, stored

PARSERS = {parser.name: parser for parser in (*stored.PARSERS, *asked.PARSERS, *placed.PARSERS)}
