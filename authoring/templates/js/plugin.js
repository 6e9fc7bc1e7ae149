// Says what a table knows of an alert's addresses.
//
// Setting: `table`, the table to look into (default: `addresses`).
// Result: `{ "matches": [ { "address", "role", "row" } ] }`; not applicable to an alert without addresses.

import { lookup } from 'dossier:plugin/tables@1.0.0';
import { explained, notApplicable } from './dossier.js';

// What configure leaves here is what every alert begins with; what enrich leaves is gone with its alert.
let table;

export const enricher = explained({
  describe: () => ({
    name: '{{name}}',
    version: '0.1.0',
    summary: "Says what a table knows of an alert's addresses",
    stage: 'enrich',
  }),

  // Once, when the plugin is loaded. What it throws is shown to the operator.
  configure(settings) {
    const { table: name = 'addresses', ...rest } = JSON.parse(settings);
    const [unknown] = Object.keys(rest);
    if (unknown !== undefined) throw `settings: unknown key \`${unknown}\``;
    if (typeof name !== 'string' || name === '') throw 'settings: table: must be a text, and not empty';
    table = name;
  },

  // Once for each alert.
  enrich(alert) {
    const addresses = alert.observables('ip');
    if (addresses.length === 0) throw notApplicable('no address in the alert');
    const matches = [];
    for (const { role, value } of addresses) {
      const row = lookup(table, value);
      if (row !== undefined) matches.push({ address: value, role, row: JSON.parse(row) });
    }
    return { fields: JSON.stringify({ matches }), observables: [] };
  },
});
