// Says what a table knows of an alert's addresses.
//
// Setting: `table`, the table to look into (default: `addresses`).
// Result: `{ "matches": [ { "address", "role", "row" } ] }`; not applicable to an alert without addresses.

#include "dossier.h"

// What configure leaves here is what every alert begins with; what enrich leaves is gone with its alert.
static plugin_string_t table;

void exports_dossier_plugin_enricher_describe(exports_dossier_plugin_enricher_description_t *about) {
    memset(about, 0, sizeof *about);
    plugin_string_dup(&about->name, "{{name}}");
    plugin_string_dup(&about->version, "0.1.0");
    plugin_string_dup(&about->summary, "Says what a table knows of an alert's addresses");
    about->stage = DOSSIER_PLUGIN_TYPES_STAGE_ENRICH;
}

// Once, when the plugin is loaded. The text of an error is shown to the operator.
bool exports_dossier_plugin_enricher_configure(plugin_string_t *settings, plugin_string_t *error) {
    plugin_string_dup(&table, "addresses");
    dossier_object_t object = dossier_object(settings);
    plugin_string_t key, value;
    while (key = dossier_value(&object), key.len > 0) {
        value = dossier_value(&object);
        if (!dossier_is(key, "\"table\"")) {
            dossier_text_t text = {0};
            dossier_add(&text, "settings: unknown key ");
            dossier_add_n(&text, key.ptr, key.len);
            *error = dossier_string(text);
            return false;
        }
        if (!dossier_plain(value, &table) || table.len == 0) {
            plugin_string_dup(error, "settings: table: must be a text, and not empty");
            return false;
        }
    }
    return true;
}

// Once for each alert.
bool exports_dossier_plugin_enricher_enrich(exports_dossier_plugin_enricher_borrow_alert_t alert,
                                            exports_dossier_plugin_enricher_answer_t *answer,
                                            exports_dossier_plugin_enricher_failure_t *failure) {
    plugin_string_t kind;
    plugin_string_set(&kind, "ip");
    dossier_plugin_types_list_observable_t addresses;
    dossier_plugin_types_method_alert_observables(alert, &kind, &addresses);
    if (addresses.len == 0) return dossier_not_applicable(failure, "no address in the alert");

    dossier_text_t fields = {0};
    const char *comma = "";
    dossier_add(&fields, "{\"matches\":[");
    for (size_t i = 0; i < addresses.len; i++) {
        dossier_plugin_types_observable_t *address = &addresses.ptr[i];
        plugin_option_string_t row;
        dossier_plugin_tables_table_error_t error;
        if (!dossier_plugin_tables_lookup(&table, &address->value, &row, &error))
            return dossier_no_table(failure, error);
        if (!row.is_some) continue;
        dossier_add(&fields, comma);
        dossier_add(&fields, "{\"address\":");
        dossier_add_json(&fields, address->value);
        dossier_add(&fields, ",\"role\":");
        dossier_add_json(&fields, address->role);
        dossier_add(&fields, ",\"row\":");
        dossier_add_n(&fields, row.val.ptr, row.val.len); // a row is JSON already
        dossier_add(&fields, "}");
        comma = ",";
        plugin_option_string_free(&row);
    }
    dossier_add(&fields, "]}");
    // Whatever is not freed goes with the instance, which is this alert's own unless the operator allows `reuse`.
    dossier_plugin_types_list_observable_free(&addresses);
    memset(answer, 0, sizeof *answer);
    answer->fields = dossier_string(fields);
    return true;
}
