"""Says what a table knows of an alert's addresses.

Setting: `table`, the table to look into (default: `addresses`).
Result: `{ "matches": [ { "address", "role", "row" } ] }`; not applicable to an alert without addresses.
"""

import json

from componentize_py_types import Err
from dossier import explained, not_applicable
from wit_world import exports
from wit_world.imports import tables
from wit_world.imports.types import Alert, Answer, Description, Stage


class Enricher(exports.Enricher):
    # What configure leaves here is what every alert begins with; what enrich leaves is gone with its alert.
    table = "addresses"

    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="Says what a table knows of an alert's addresses",
            stage=Stage.ENRICH,
            result_schema=None,
        )

    def configure(self, settings: str) -> None:
        """Once, when the plugin is loaded. What it raises is shown to the operator."""
        values = json.loads(settings)
        table = values.pop("table", "addresses")
        for unknown in values:
            raise Err(f"settings: unknown key `{unknown}`")
        if not isinstance(table, str) or not table:
            raise Err("settings: table: must be a text, and not empty")
        Enricher.table = table

    @explained
    def enrich(self, alert: Alert) -> Answer:
        """Once for each alert."""
        addresses = alert.observables("ip")
        if not addresses:
            raise not_applicable("no address in the alert")
        matches = []
        for address in addresses:
            row = tables.lookup(Enricher.table, address.value)
            if row is not None:
                matches.append({"address": address.value, "role": address.role, "row": json.loads(row)})
        return Answer(fields=json.dumps({"matches": matches}), observables=[], verdict=None)
